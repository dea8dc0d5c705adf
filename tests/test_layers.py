"""The house: imports point one way, between layers and between rooms; rooms are small and say
so."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from ddim_core.text2image.embedded import embedded_base

PROJECT = Path(__file__).parents[1]
PACKAGES = ("ddim_core", "tasks", "flows")
FORBIDDEN = {
    "ddim_core": {"prefect", "mlflow", "tasks", "flows"},
    "tasks": {"flows"},
    "flows": {"torch", "mlflow"},
}
SLOW = {
    "diffusers", "transformers", "peft", "accelerate", "torchvision", "torch_fidelity", "datasets",
    "scipy", "sklearn", "pandas", "mlflow",
}  # fmt: skip
MLFLOW = "tasks.tracking"  # the only room that imports mlflow
LONGEST = 350  # lines of a file
WIDEST = 12  # Python files of a folder, `__init__` not counted

# The rooms, lowest first, each with the rooms that it may import. A room is a folder; what is not
# said here is refused, and so is a room that is not named.
ARROWS: dict[str, set[str]] = {
    "ddim_core.common": set(),
    "ddim_core.schedulers": {"ddim_core.common"},
    "ddim_core.safe_files.claims": {"ddim_core.common"},
    "ddim_core.safe_files.pickles": {"ddim_core.common"},
    "ddim_core.safe_files": {
        "ddim_core.common", "ddim_core.schedulers", "ddim_core.safe_files.claims",
        "ddim_core.safe_files.pickles",
    },
    "ddim_core.safe_files.loras": {
        "ddim_core.common", "ddim_core.safe_files", "ddim_core.safe_files.claims",
    },
    "ddim_core.diffusion": {"ddim_core.common", "ddim_core.schedulers"},
    "ddim_core.devices": {"ddim_core.common"},
    "ddim_core.images.sources": {
        "ddim_core.common", "ddim_core.safe_files", "ddim_core.safe_files.claims",
        "ddim_core.diffusion",
    },
    "ddim_core.images": {
        "ddim_core.common", "ddim_core.safe_files", "ddim_core.diffusion",
        "ddim_core.images.sources",
    },
    "ddim_core.networks": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files", "ddim_core.diffusion",
        "ddim_core.images",
    },
    "ddim_core.features": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files", "ddim_core.diffusion",
        "ddim_core.images",
        "ddim_core.networks",
    },
    "ddim_core.statistics": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files",
        "ddim_core.safe_files.pickles",
        "ddim_core.images.sources", "ddim_core.features",
    },
    "ddim_core.scores.distances": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.statistics",
    },
    "ddim_core.scores.alone": {"ddim_core.statistics"},
    "ddim_core.scores": {
        "ddim_core.scores.distances",
        "ddim_core.common", "ddim_core.devices", "ddim_core.diffusion", "ddim_core.features",
        "ddim_core.statistics",
        "ddim_core.scores.alone",
    },
    "ddim_core.peers": {
        "ddim_core.common", "ddim_core.scores.alone", "ddim_core.scores.distances",
        "ddim_core.scores", "ddim_core.statistics",
    },
    "ddim_core.image_scores.networks": {
        "ddim_core.common", "ddim_core.safe_files", "ddim_core.features", "ddim_core.networks",
    },
    "ddim_core.image_scores": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files", "ddim_core.features",
        "ddim_core.networks", "ddim_core.statistics", "ddim_core.image_scores.networks",
    },
    "ddim_core.samplers": {
        "ddim_core.common", "ddim_core.schedulers", "ddim_core.devices", "ddim_core.diffusion",
        "ddim_core.networks",
    },
    "ddim_core.pipelines.guidance": set(),
    "ddim_core.pipelines": {
        "ddim_core.pipelines.guidance",
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files",
        "ddim_core.safe_files.claims", "ddim_core.safe_files.loras", "ddim_core.diffusion",
        "ddim_core.images",
        "ddim_core.networks", "ddim_core.samplers",
    },
    "ddim_core.tuning": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.diffusion", "ddim_core.samplers",
        "ddim_core.pipelines", "ddim_core.scores.distances",
    },
    "ddim_core.networks.backbones": {
        "ddim_core.common", "ddim_core.safe_files", "ddim_core.networks",
    },
    "ddim_core.checkpoints.formats": {
        "ddim_core.common", "ddim_core.safe_files", "ddim_core.safe_files.pickles",
        "ddim_core.diffusion",
        "ddim_core.networks.backbones",
    },
    "ddim_core.checkpoints": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files",
        "ddim_core.safe_files.claims", "ddim_core.diffusion",
        "ddim_core.networks", "ddim_core.networks.backbones",
        "ddim_core.checkpoints.formats",
    },
    "ddim_core.decisions": {
        "ddim_core.common", "ddim_core.samplers", "ddim_core.features", "ddim_core.statistics",
        "ddim_core.image_scores",
    },
    "ddim_core.decisions.checkpoints": {
        "ddim_core.common", "ddim_core.statistics", "ddim_core.decisions",
    },
    "ddim_core.shipping": {
        "ddim_core.common", "ddim_core.schedulers", "ddim_core.diffusion", "ddim_core.samplers",
        "ddim_core.networks.backbones", "ddim_core.decisions",
    },
    "ddim_core.points": {
        "ddim_core.common", "ddim_core.diffusion", "ddim_core.networks", "ddim_core.statistics",
        "ddim_core.decisions",
    },
    "ddim_core.text2image": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files", "ddim_core.diffusion",
        "ddim_core.images",
        "ddim_core.images.sources", "ddim_core.networks", "ddim_core.features",
    },
    "ddim_core.lora.trainers": {
        "ddim_core.common", "ddim_core.safe_files", "ddim_core.images.sources",
    },
    "ddim_core.lora": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.safe_files", "ddim_core.diffusion",
        "ddim_core.images",
        "ddim_core.images.sources", "ddim_core.networks", "ddim_core.text2image",
        "ddim_core.lora.trainers",
    },
    "ddim_core.lora.training": {
        "ddim_core.common", "ddim_core.devices", "ddim_core.networks", "ddim_core.text2image",
        "ddim_core.lora",
    },
    "ddim_core.lora.scoring": {
        "ddim_core.common", "ddim_core.diffusion", "ddim_core.features", "ddim_core.networks",
        "ddim_core.scores.distances", "ddim_core.scores", "ddim_core.statistics",
        "ddim_core.text2image", "ddim_core.image_scores",
    },
    "ddim_core.reports.answers": {"ddim_core.decisions"},
    "ddim_core.reports.verdicts": {
        "ddim_core.statistics", "ddim_core.decisions", "ddim_core.decisions.checkpoints",
        "ddim_core.reports",
    },
    "ddim_core.reports": {
        "ddim_core.diffusion", "ddim_core.scores", "ddim_core.statistics", "ddim_core.decisions",
        "ddim_core.decisions.checkpoints", "ddim_core.points", "ddim_core.lora.scoring",
    },
    "tasks.storage": set(),
    "tasks.machine": {"tasks.storage"},
    "tasks.image_scores": {"tasks.storage", "tasks.machine"},
    "tasks.points": {"tasks.storage"},
    "tasks.lora": {"tasks.storage", "tasks.machine"},
    "tasks.lora.scoring": {
        "tasks.storage", "tasks.machine", "tasks.image_scores", "tasks.lora",
    },
    "tasks.tracking": {
        "tasks.storage", "tasks.machine", "tasks.points", "tasks.lora", "tasks.lora.scoring",
    },
    "tasks.checkpoints": {"tasks.storage", "tasks.machine", "tasks.tracking"},
    "tasks.images": {"tasks.storage", "tasks.checkpoints"},
    "tasks.sampling": {
        "tasks.storage", "tasks.machine", "tasks.checkpoints", "tasks.images",
    },
    "tasks.cells": {
        "tasks.storage", "tasks.machine", "tasks.image_scores", "tasks.checkpoints",
        "tasks.images", "tasks.sampling",
    },
    "tasks.score_command": {"tasks.storage", "tasks.machine", "tasks.cells"},
    "tasks.shipping": {
        "tasks.storage", "tasks.checkpoints", "tasks.images", "tasks.sampling", "tasks.cells",
    },
    "tasks.tuning": {
        "tasks.storage", "tasks.machine", "tasks.tracking", "tasks.checkpoints", "tasks.images",
        "tasks.sampling", "tasks.cells",
    },
    "tasks.lora.epochs": {
        "tasks.storage", "tasks.machine", "tasks.checkpoints", "tasks.images", "tasks.sampling",
        "tasks.lora.scoring", "tasks.reports", "tasks.reports.frame",
    },
    "tasks.text2image": {"tasks.storage", "tasks.machine", "tasks.lora", "tasks.reports"},
    "tasks.reports.frame": {"tasks.storage"},
    "tasks.reports": {
        "tasks.reports.frame",
        "tasks.storage", "tasks.machine", "tasks.image_scores", "tasks.sampling", "tasks.cells",
        "tasks.lora", "tasks.tuning",
    },
    "tasks": {"tasks.storage"},
    "flows.servers": set(),
    "flows.run": {"flows.servers"},
    "flows.requests.samplers": set(),
    "flows.requests": {"flows.run", "flows.requests.samplers"},
    "flows.lora": {"flows.run", "flows.requests"},
    "flows.early": {"flows.requests", "flows.requests.samplers", "flows.lora"},
    "flows.grid": {"flows.run", "flows.requests", "flows.requests.samplers", "flows.early"},
    "flows.tuning": {
        "flows.run", "flows.requests", "flows.requests.samplers", "flows.early", "flows.grid",
    },
    "flows": {
        "flows.servers", "flows.run", "flows.requests", "flows.requests.samplers", "flows.early",
        "flows.grid", "flows.lora", "flows.tuning",
    },
    "flows.watch": {"flows", "flows.requests", "flows.early"},
    "flows.team": {"flows.servers", "flows.requests"},
    "flows.cli.text": {"flows", "flows.grid"},
    "flows.cli.commands": {
        "flows", "flows.watch", "flows.servers", "flows.run", "flows.requests",
        "flows.requests.samplers", "flows.early", "flows.grid", "flows.lora", "flows.team",
        "flows.cli.text",
    },
    "flows.cli": {
        "flows", "flows.servers", "flows.run", "flows.requests", "flows.grid", "flows.team",
        "flows.cli.text", "flows.cli.commands",
    },
}  # fmt: skip
# `import ddim_core` hands out public names from any room, lazily; none of our own code asks it to.
LAZY = "ddim_core"


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name; a package's name is its `__init__`."""
    found = {}
    for package in PACKAGES:
        for path in sorted((PROJECT / package).rglob("*.py")):
            parts = path.relative_to(PROJECT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    assert len(found) > 200
    return found


def room_of(module: str) -> str:
    return module if modules()[module].name == "__init__.py" else module.rpartition(".")[0]


def statements(tree: ast.AST, inside: bool) -> Iterator[ast.AST]:
    """All nodes of a module; without `inside`, those that run when it is imported."""
    for node in ast.iter_child_nodes(tree):
        if inside or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
            yield from statements(node, inside)


def imported(source: str, inside: bool = True) -> Iterator[str]:
    """The full names of what a source imports: `a.b` and also `a.b.name`."""
    for node in statements(ast.parse(source), inside):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import of {node.module!r}"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def asked(module: str, inside: bool = True) -> frozenset[str]:
    return frozenset(imported(modules()[module].read_text(encoding="utf-8"), inside))


@cache
def ours(inside: bool = True) -> dict[str, set[str]]:
    """The modules of ours that each module imports."""
    found = {}
    for name in modules():
        known = {whole for whole in asked(name, inside) if whole in modules()}
        # `from room import module` asks for the module, not for what the room's __init__ holds.
        found[name] = known - {whole.rpartition(".")[0] for whole in known} - {name}
    return found


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\ndef f():\n    from c.d import e\n    import g as h\n"
    assert set(imported(source)) == {"a.b", "c.d", "c.d.e", "g"}
    assert set(imported(source, inside=False)) == {"a.b"}


@pytest.mark.parametrize("package", PACKAGES)
def test_layer_imports_only_what_lies_below_it(package: str) -> None:
    wrong = {}
    for name in modules():
        if name.split(".")[0] == package:
            tops = {whole.split(".")[0] for whole in asked(name)}
            if found := tops & FORBIDDEN[package]:
                wrong[name] = found
    assert wrong == {}


def test_only_the_tracking_room_imports_mlflow() -> None:
    importers = {
        name for name in modules() if any(whole.split(".")[0] == "mlflow" for whole in asked(name))
    }
    assert importers
    assert [name for name in sorted(importers) if not name.startswith(f"{MLFLOW}.")] == []


def test_slow_libraries_are_imported_where_something_of_them_is_used() -> None:
    """So that a flow is deployed, and a command is answered, without them (`common/late.py`)."""
    wrong = {}
    for name, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        tree.body = [node for node in tree.body if not isinstance(node, ast.If)]
        tops = {whole.split(".")[0] for whole in imported(ast.unparse(tree), inside=False)}
        if found := tops & SLOW:
            wrong[name] = found
    assert wrong == {}


def test_rooms_import_along_the_arrows_alone() -> None:
    wrong = []
    for name, targets in ours().items():
        room = room_of(name)
        if name == LAZY:
            continue
        for target in targets:
            to = room_of(target)
            same_layer = to.split(".")[0] == room.split(".")[0]
            if same_layer and to != room and to not in ARROWS.get(room, set()):
                wrong.append(f"{name} -> {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_every_room_has_its_arrows_and_they_make_no_circle() -> None:
    rooms = {room_of(name) for name in modules()} - {LAZY}
    assert rooms == set(ARROWS)
    try:
        tuple(TopologicalSorter(ARROWS).static_order())
    except CycleError as error:
        pytest.fail(f"rooms in a circle: {error.args[1]}")


def test_no_modules_import_each_other_in_a_circle_when_they_are_imported() -> None:
    graph = {name: targets for name, targets in ours(inside=False).items() if name != LAZY}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules in a circle: {' -> '.join(error.args[1])}")


def test_code_that_cache_keys_cover_is_imported_by_statements() -> None:
    """`code_digest` follows no name that is a text: a change of such a module would go unseen."""
    of_keys = {name: p.read_text("utf-8") for name, p in modules().items() if name[:5] != "flows"}
    by_text = {name for name, text in of_keys.items() if re.search(r"\bimport_module\(", text)}
    assert by_text == {LAZY, "ddim_core.common.digest", "ddim_core.common.late"}
    late = re.compile(r"""late\(\s*["'](ddim_core|tasks|flows)\b""")
    assert [name for name, text in of_keys.items() if late.search(text)] == []


def test_nothing_of_ours_takes_the_public_names_from_the_lazy_package() -> None:
    asking = {
        name
        for name in modules()
        for whole in asked(name)
        if whole.startswith(f"{LAZY}.") and whole.count(".") == 1 and whole not in modules()
    }
    assert asking == set()


def test_rooms_are_small_and_say_what_lives_there() -> None:
    for room in {path.parent for path in modules().values()}:
        files = [path.name for path in room.glob("*.py") if path.name != "__init__.py"]
        assert len(files) <= WIDEST, f"{room.relative_to(PROJECT)} has {len(files)} files"
        charter = ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8")))
        assert charter, f"{room.relative_to(PROJECT)}/__init__.py does not say what lives there"


def test_a_wheel_holds_every_room() -> None:
    with (PROJECT / "pyproject.toml").open("rb") as file:
        told = tomllib.load(file)["tool"]["setuptools"]
    base = "ddim_core.base"  # lies among the data
    assert set(told["packages"]) - {base} == {room_of(name) for name in modules()}
    place = PROJECT / told["package-dir"][base]
    assert embedded_base() == place
    assert f"!{place.relative_to(PROJECT)}" in (PROJECT / ".dockerignore").read_text().split()


def test_files_are_short() -> None:
    lengths = {n: len(p.read_text("utf-8").splitlines()) for n, p in modules().items()}
    assert {name: n for name, n in lengths.items() if n >= LONGEST} == {}
