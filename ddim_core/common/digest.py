"""Digests of values and of code: what a cache key is made of.

Two things must never share a key (a stale result would be trusted), and one thing should have
one key however it is written: comments, docstrings and formatting do not count.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from threading import Lock
from typing import Any

from ddim_core.common.plain_files import open_regular

PACKAGES = ("ddim_core.", "tasks.")
LATER = "later"
"""In the metadata of a field that came after records were kept: at its default it does not count,
so that what was computed before keeps its name."""
COMPANIONS = frozenset({".html"})
# Modules whose text is in no key. Specs reach a task as inputs, so their values are in its key
# already. The others move bytes that are verified by digest, and change none.
APART = frozenset(
    {
        "ddim_core.diffusion.specs",
        "ddim_core.networks.specs",
        "ddim_core.points.specs",
        "tasks.storage.artifact",
        "tasks.storage.caching",
        "tasks.storage.places",
        "tasks.storage.store",
        "ddim_core.common.plain_files",
        "ddim_core.safe_files.pickles.scan",
    }
)


def canonical(value: Any) -> Any:
    """Turns a value into plain JSON data in which equal meanings are equal text.

    A reference to a stored artefact (a record, or a mapping, with an `artifact`) counts by its
    content digest alone: what it cost to make, and when, is no part of what it is.

    Raises:
        TypeError: For anything that is not a frozen record, mapping, sequence or JSON scalar;
            a path, array or model has no place in a key.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return {"float": value.hex()}
    if is_dataclass(value) and not isinstance(value, type):
        if hasattr(value, "artifact"):
            return {"artifact": value.artifact}
        content = {name: canonical(held) for name, held in said_by(value).items()}
        return {"record": type(value).__name__, **content}
    if isinstance(value, Mapping):
        if "artifact" in value:
            return {"artifact": str(value["artifact"])}
        return {"mapping": sorted([str(k), canonical(v)] for k, v in value.items())}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [canonical(item) for item in value]
    raise TypeError(
        f"a {type(value).__name__} cannot be part of a cache key; pass a frozen record, "
        "a plain value, or a reference to a stored artefact"
    )


def said_by(record: Any) -> dict[str, Any]:
    """Returns a record's fields by name, without those that came later and are at their default."""
    told = {f.name: (f, getattr(record, f.name)) for f in fields(record)}
    return {
        name: held
        for name, (f, held) in told.items()
        if not (LATER in f.metadata and held == f.default)
    }


def digest(*values: Any) -> str:
    """Returns the sha256 hex digest of values in their canonical form."""
    text = json.dumps([canonical(v) for v in values], separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Returns the sha256 hex digest of a regular file's bytes, read in blocks.

    Raises:
        OSError: If it cannot be read, or is a pipe or a device.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Python 3.11 fails with a SystemError when two threads parse at once, and trees are shared.
PARSING = Lock()


@cache
def code_digest(module: str) -> str:
    """Returns the digest of a module and of all code of ours that it imports, directly or not.

    Over the abstract syntax tree without docstrings, so that editing a comment changes nothing.
    A data file beside a module with the same stem (a template) counts as part of it. Python's
    own version counts too: the same text may parse to another tree under another version, and
    then everything is made again, which is safe.
    """
    with PARSING:
        return digest([part for name in sorted(_closure(module)) for part in _read(name)[0]])


@cache
def _read(module: str) -> tuple[list[list[str]], set[str]]:
    """What a module's own text adds to a digest, and the modules of ours that it names.

    Each text is read once, however many tasks import it.
    """
    path = _source_path(module)
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    imported = _our_imports(module, path, nodes)
    beside = [p for p in sorted(path.parent.glob(f"{path.stem}.*")) if p.suffix in COMPANIONS]
    _drop_docstrings(nodes)
    own = [module, ast.dump(tree)]
    return [own, *([companion.name, file_digest(companion)] for companion in beside)], imported


def _closure(module: str) -> set[str]:
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found and name not in APART:
            found.add(name)
            waiting.extend(_read(name)[1])
    return found


def _our_imports(module: str, path: Path, nodes: Sequence[ast.AST]) -> set[str]:
    """The modules of our packages that a module imports or reaches, anywhere in its text.

    In whatever way it says so: `import a.b`, `from a import b`, `from a.b import name`, relative
    imports, aliases, and `b.c.name` where `from a import b` gave a package b. The packages on the
    way count too, as Python runs their `__init__`; but not the outermost, which settle an
    environment or hand out names lazily.
    """
    inside = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    bound: dict[str, str] = {}  # names in the text that stand for modules of ours
    for node in nodes:
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
            bound.update(
                (alias.asname, alias.name)
                if alias.asname
                else (alias.name.split(".")[0], alias.name.split(".")[0])
                for alias in node.names
            )
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), inside)
            found = _named(source, [alias.name for alias in node.names])
            names.update(found.values())
            bound.update(
                (alias.asname or alias.name, found[alias.name])
                for alias in node.names
                if found[alias.name] != source
            )
    for node in nodes:
        if isinstance(node, ast.Attribute):
            names.update(_reached(node, bound))
    ours = {name for name in names if name.startswith(PACKAGES)}
    return ours | {package for name in ours for package in _packages_of(name)}


def _named(source: str, names: Sequence[str]) -> dict[str, str]:
    """The module that each name of `from source import names` is, or else is defined in."""
    if not f"{source}.".startswith(PACKAGES) or not _is_package(source):
        return dict.fromkeys(names, source)
    if "*" in names:
        raise ValueError(f"`from {source} import *` hides which modules are meant: name them")
    outermost = f"{source}." in PACKAGES
    return {
        name: inner if outermost or _find(inner) else source
        for name in names
        for inner in (f"{source}.{name}",)
    }


def _reached(node: ast.Attribute, bound: Mapping[str, str]) -> set[str]:
    """The modules that a chain of names such as `scores.frechet.distance` passes through."""
    chain: list[str] = []
    value: ast.expr = node
    while isinstance(value, ast.Attribute):
        chain.insert(0, value.attr)
        value = value.value
    name = bound.get(value.id, "") if isinstance(value, ast.Name) else ""
    found: set[str] = set()
    while f"{name}.".startswith(PACKAGES) and _is_package(name) and chain:
        name = f"{name}.{chain.pop(0)}"
        if _find(name):
            found.add(name)
    return found


def _packages_of(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:n]) for n in range(2, len(parts))]


def _source_path(module: str) -> Path:
    spec = _find(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"there is no source for the module {module!r}")
    return Path(spec.origin)


def _is_package(module: str) -> bool:
    spec = _find(module)
    return spec is not None and spec.submodule_search_locations is not None


@cache
def _find(module: str) -> ModuleSpec | None:
    """Where a module lies. Nothing is run to find out, but for the outermost package."""
    outermost, *inner = module.split(".")
    name, spec = outermost, importlib.util.find_spec(outermost)
    places: Sequence[str] | None = importlib.import_module(outermost).__path__ if inner else None
    for part in inner:
        name = f"{name}.{part}"
        spec = PathFinder.find_spec(name, places) if places is not None else None
        places = spec.submodule_search_locations if spec is not None else None
    return spec


def _drop_docstrings(nodes: Sequence[ast.AST]) -> None:
    for node in nodes:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]
