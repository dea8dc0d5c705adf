"""A flow's parameters with its defaults, read from its source, so that Prefect is not imported.

The defaults stand once, in the flow's signature, where Prefect's form shows them too. Checking what
was asked for takes a fraction of a second; importing the flow with all that it works with takes
many.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def with_defaults(flow: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all parameters of the flow `flows.NAME.NAME`: those given, and defaults for the rest.

    Raises:
        TypeError: If the flow has no parameter of a given name.
    """
    bound = signature_of(flow).bind(**given)
    bound.apply_defaults()
    return dict(bound.arguments)


def signature_of(flow: str) -> inspect.Signature:
    """Returns the signature of the flow `flows.NAME.NAME`; annotations stay text."""
    path = Path(__file__).with_name(f"{flow}.py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    function = next(
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == flow
    )
    parameters, defaults = function.args.args, function.args.defaults
    without = len(parameters) - len(defaults)
    values = [inspect.Parameter.empty] * without + [_value(node, tree) for node in defaults]
    return inspect.Signature(
        [
            inspect.Parameter(p.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value)
            for p, value in zip(parameters, values, strict=True)
        ]
    )


def _value(node: ast.expr, tree: ast.Module) -> Any:
    """What a default is: plain data, or a name that the module imports and attributes of it."""
    if isinstance(node, ast.Attribute):
        return getattr(_value(node.value, tree), node.attr)
    if isinstance(node, ast.Name):
        return _imported(node.id, tree)
    return ast.literal_eval(node)


def _imported(name: str, tree: ast.Module) -> Any:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return getattr(importlib.import_module(str(node.module)), name)
    raise ValueError(f"the default {name} is not imported by the flow's module")
