"""Templates and values in, whole pages out: the one place that escapes, and says what may run.

A page is one file that opens from disk and asks the network for nothing. Its scripts are ours and
the charting library's, named by their digests in its Content-Security-Policy, so that a browser
runs no other; what data says stands in escaped text, or in JSON that no browser reads as a script.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
SHELL, MACROS = HERE / "shell.html", HERE / "shell.macros.html"
MARKDOWN = ".md.html"  # model cards: Markdown, where nothing is escaped
# Observable Plot and the d3 it stands on, as npm has them, by sha256; ISC licence, beside them.
LIBRARY = {
    "d3-7.9.2.min.js": "912111098ea99503a6f4967361d2bbdc9dbf58cf9c678c8e27e5b02d1a07f0c1",
    "plot-0.6.17.min.js": "4358086467740777dd788d6b27a95cebdbaefdd50c730a3060117073bd7134cb",
}
SCRIPTS = ("tables", "charts", "pictures")  # shell.NAME.html; each knows those before it


class FrameError(RuntimeError):
    """A file of the frame is not the one that was shipped."""


def html(template: Path, figures: Mapping[str, bytes], values: Mapping[str, Any]) -> str:
    """Fills a page that opens from disk: its `figures` stand in it, as base64 by name.

    Args:
        template: Extends the shell.
        figures: PNG or GIF bytes by name.
        values: What the template asks for; `data`, if any, is what the page's scripts read.

    Raises:
        FrameError: If the charting library's files are damaged.
    """
    inlined = {name: base64.b64encode(data).decode() for name, data in figures.items()}
    return render(template, {"data": {}, "figures": inlined, **values, **_frame()})


def render(template: Path, values: Mapping[str, Any]) -> str:
    """Fills a template. In HTML every value is escaped; a value that is missing is an error."""
    return TEMPLATES.get_template(str(template)).render(values)


def _frame() -> dict[str, Any]:
    """The style and scripts of a page, and the policy that lets these alone run."""
    scripts = [*_library(), *(_within("script", f"shell.{name}.html") for name in SCRIPTS)]
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts]
    allowed = " ".join(f"'sha256-{found}'" for found in hashes)
    return {
        "shell": str(SHELL),
        "macros": str(MACROS),
        # The library styles what it draws, so styles are free; they load nothing and run nothing.
        "policy": f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'",
        "style": Markup(_within("style", "shell.style.html")),
        "scripts": [Markup(script) for script in scripts],
    }


def _library() -> list[str]:
    """The charting library's files, in the order in which they are run."""
    texts = []
    for name, wanted in LIBRARY.items():
        data = (HERE / "vendor" / name).read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != wanted:
            raise FrameError(
                f"{HERE / 'vendor' / name} has the sha256 {found}, and {wanted} was shipped: "
                "install ddim-flows anew"
            )
        texts.append(data.decode())
    return texts


def _within(tag: str, name: str) -> str:
    """What stands between a file's first `<tag>` and its last `</tag>`."""
    text = (HERE / name).read_text(encoding="utf-8")
    return text.partition(f"<{tag}>")[2].rpartition(f"</{tag}>")[0]


TEMPLATES = Environment(
    loader=FunctionLoader(lambda place: Path(place).read_text(encoding="utf-8")),
    autoescape=lambda place: place is None or not place.endswith(MARKDOWN),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
