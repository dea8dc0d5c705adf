"""The layers: imports point one way, flows -> tasks -> ddim_core, and files stay short."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
FORBIDDEN = {
    "ddim_core": {"prefect", "mlflow", "tasks", "flows"},
    "tasks": {"flows"},
    "flows": {"torch", "mlflow"},
}
LONGEST = 350  # lines


def sources(package: str) -> list[Path]:
    found = sorted((PROJECT / package).rglob("*.py"))
    assert found, f"{package} has no source"
    return found


def imported(source: str) -> set[str]:
    """The top-level names of everything a source imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module!r}"
            names.add((node.module or "").split(".")[0])
    return names


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\ndef f():\n    from c.d import e\n    import g as h\n"
    assert imported(source) == {"a", "c", "g"}


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_layer_imports_only_what_lies_below_it(package: str) -> None:
    wrong = {
        path.name: found
        for path in sources(package)
        if (found := imported(path.read_text(encoding="utf-8")) & FORBIDDEN[package])
    }
    assert wrong == {}


def test_only_tracking_imports_mlflow() -> None:
    importers = [p.stem for p in sources("tasks") if "mlflow" in imported(p.read_text("utf-8"))]
    assert "tracking" in importers
    assert [name for name in importers if name.split("_")[0] != "tracking"] == []


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_files_are_short(package: str) -> None:
    lengths = {p.name: len(p.read_text("utf-8").splitlines()) for p in sources(package)}
    assert {name: n for name, n in lengths.items() if n >= LONGEST} == {}
