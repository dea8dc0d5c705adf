"""What flow runs are called in Prefect's UI: the flow, of what, and what was not left as usual."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext

from ddim_core.diffusion.specs import USUAL_ETAS
from tasks.storage.naming import UNREADABLE, bounded, place_name

# Said in the head of a name, or no part of what is made: where and how it is done.
UNSAID = frozenset(
    {"checkpoint", "checkpoints", "sigma_hat", "against", "at", "margin", "gate", "promote",
     "matrix_images", "batch_size", "threads", "device", "runner", "workers", "feature_weights",
     "here",
     "settle_seconds", "attempts", "grid", "sources", "base", "data", "title", "processes",
     "gradient_checkpointing", "output", "loras", "style_images", "subject_images",
     "held_out_images"}
)  # fmt: skip


def flow_name() -> str:
    """Names the flow run that starts, for `flow_run_name`. A name is for people alone: what cannot
    be read of the parameters costs it detail, never the run."""
    context = FlowRunContext.get()
    if context is None or context.flow is None:
        return "flow run"
    flow, parameters = context.flow, context.parameters or {}
    try:
        head = HEADS[flow.name](parameters)
        return bounded(" ".join([flow.name, head, *_unusual(flow.fn, parameters, head)]))
    except UNREADABLE:
        return flow.name


def _unusual(function: Callable[..., Any], parameters: Mapping[str, Any], said: str) -> list[str]:
    """The parameters that have not their default, as name=value."""
    known = inspect.signature(function).parameters
    return [
        f"{name}={_value(value)}"
        for name, value in parameters.items()
        if name in known
        and name not in UNSAID
        and value != known[name].default
        and not (name == "dataset" and _value(value) in said)
    ]


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_value, value))
    return f"{value:g}" if isinstance(value, float) else place_name(str(value))


def _grid(parameters: Mapping[str, Any]) -> str:
    """The checkpoint, and how many S and lines."""
    return f"{_checkpoint(parameters)} {_size(parameters)}"


def _snapshots(parameters: Mapping[str, Any]) -> str:
    """The same of several checkpoints, of which a folder or pattern names some."""
    return f"{', '.join(map(place_name, parameters['checkpoints']))} {_size(parameters)}"


def _size(parameters: Mapping[str, Any]) -> str:
    etas = list(dict.fromkeys(map(float, parameters["etas"])))
    asked = parameters.get("sigma_hat", True)  # the paper's grid always has it
    sigma_hat = list(map(float, parameters["etas"])) == USUAL_ETAS if asked is None else asked
    scales = len(set(parameters.get("guidance", [1.0])))
    lines = (len(etas) + bool(sigma_hat)) * scales
    return f"{len(set(parameters['steps']))} S x {lines} lines"


def _checkpoint(parameters: Mapping[str, Any]) -> str:
    if parameters["checkpoint"]:
        return place_name(parameters["checkpoint"])
    kind = "-conditional" if parameters.get("class_conditional") else ""
    return f"toy-{Path(parameters['dataset']).stem}{kind}"


def _points(parameters: Mapping[str, Any]) -> str:
    n_steps, n_etas = len(set(parameters["steps"])), len(set(parameters["etas"]))
    return f"{parameters['dataset']} {n_steps} S x {n_etas} lines"


def _lora(parameters: Mapping[str, Any]) -> str:
    base, data = (place_name(parameters[name]) or "embedded" for name in ("base", "data"))
    return f"{place_name(parameters['title'])} of {data} images on {base} base"


def _sources(parameters: Mapping[str, Any]) -> str:
    return ", ".join(map(place_name, parameters["sources"])) or "of the usual places"


HEADS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "fid-grid": _grid,
    "until-decided": _grid,
    "snapshots": _snapshots,
    "paper": _grid,
    "swiss-roll": _points,
    "train-toy": lambda p: place_name(p["dataset"]),
    "train-base": lambda _: "emoji",
    "lora-style": _lora,
    "lora-subject": _lora,
    "lora-score": lambda p: ",".join(map(place_name, p["loras"])),
    "checkpoint-watch": _sources,
    "tune": lambda p: f"{_checkpoint(p)} {','.join(map(str, p['calls']))} calls",
}
