"""The notebooks of the docs run from the first cell to the last, in a kernel of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests import forked
from tests.flows.grids import PROJECT

pytestmark = pytest.mark.timeout(400)
# The console script `ddim`, in a fork that has the libraries.
DDIM = f"""#!{sys.executable}
import os, sys

code = f"import sys; sys.argv[1:] = {{sys.argv[1:]}}; from flows.cli.entry import main; main()"
os.execv(sys.executable, [sys.executable, {forked.__file__!r}, "-u", "-c", code])
"""


@pytest.mark.parametrize(
    ("name", "shown"), [("choose_a_sampler", "unipc"), ("compare_checkpoints", "better")]
)
def test_a_notebook_runs(
    name: str, shown: str, fresh_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DDIM_DATA", str(fresh_data))
    forked.start_once()
    script = fresh_data.parent / "bin" / "ddim"
    script.parent.mkdir()
    script.write_text(DDIM)
    script.chmod(0o755)
    places = [str(script.parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(places))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{fresh_data / 'mlflow.db'}")
    book = nbformat.read(PROJECT / "docs" / "notebooks" / f"{name}.ipynb", as_version=4)
    assert [cell for cell in book.cells if cell.get("outputs")] == [], "commit it without outputs"
    here = {"metadata": {"path": str(fresh_data.parent)}}
    NotebookClient(book, timeout=300, resources=here, allow_errors=True).execute()
    told = [output for cell in book.cells for output in cell.get("outputs", [])]
    said = "".join(output.get("text", "") for output in told)
    assert [output for output in told if output["output_type"] == "error"] == [], said[-3000:]
    assert shown in str(told)
