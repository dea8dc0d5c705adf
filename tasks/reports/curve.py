"""The checkpoint curve as a page of its own: FID with intervals over training steps."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from jinja2 import Environment, StrictUndefined

from ddim_core.common.digest import digest
from ddim_core.decisions.row import cell_name
from ddim_core.decisions.verdict import Row, names_cell
from ddim_core.reports.verdict_figures import checkpoint_curve
from ddim_core.reports.verdict_sentences import best_of, by_checkpoint
from tasks.reports.verdict_page import MOST_CURVES
from tasks.storage import places, store

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>FID over checkpoints</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; color: #1c2733; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
  table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .84rem; }
  th, td { padding: .25rem .5rem; text-align: right; border-bottom: 1px solid #dde4ea; }
  td:first-child, th:first-child { text-align: left; } img { max-width: 100%; } p { color: #51606f; }
</style></head><body>
<h1>FID over checkpoints</h1>
<p>Against {{ first.dataset }} {{ first.split }}: N = {{ first.n_images }} images a cell, {{ first.n_reference }}
real images, {{ first.extractor }} features, resize {{ first.resize }}, seed {{ first.seed }}; 95 % intervals.</p>
<img alt="FID over checkpoints" src="data:image/png;base64,{{ figure }}">
<table><tr><th>checkpoint</th><th>training step</th><th>best cell</th>{% for cell in cells %}<th>{{ cell }}</th>{% endfor %}</tr>
{% for rows in history %}
<tr><td>{{ rows[0].checkpoint }}</td><td>{{ rows[0].training_step if rows[0].training_step is not none else "-" }}</td>
<td>{{ cell_name(best_of(rows).best) }}</td>
{% for cell in cells %}<td>{% for row in rows if cell_name(row) == cell %}{{ "%.3f"|format(row.fid) }}{% if row.fid_low is not none %} [{{ "%.3f"|format(row.fid_low) }}, {{ "%.3f"|format(row.fid_high) }}]{% endif %}{% endfor %}</td>{% endfor %}</tr>
{% endfor %}
</table></body></html>
"""  # noqa: E501


def write_curve(last: Sequence[Row], comparable: Sequence[Row], cells: Sequence[str]) -> str:
    """Writes the page to reports/curve-<digest>/ and returns its place.

    Args:
        last: Rows of the checkpoint scored last, for the choice of cells.
        comparable: Rows of all checkpoints by its protocol.
        cells: Cells asked for, S and eta, such as `20,0.5`; empty takes the best of `last`.
    """
    ranked = [cell_name(row) for row in sorted(last, key=lambda row: row["fid"])]
    asked = [cell_name(row) for cell in cells for row in last if names_cell(row, cell)]
    drawn = asked or ranked[:MOST_CURVES]
    history = by_checkpoint([row for row in comparable if cell_name(row) in ranked])
    figure = base64.b64encode(checkpoint_curve(history, drawn)).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    page = environment.from_string(PAGE).render(
        first=last[0], history=history, cells=drawn, figure=figure, cell_name=cell_name,
        best_of=best_of,
    )  # fmt: skip
    identity = digest(sorted(row["cell_digest"] for row in comparable), drawn)
    place = places.data_url("reports", f"curve-{identity[:12]}", "index.html")
    store.write_whole(place, page.encode())
    return place
