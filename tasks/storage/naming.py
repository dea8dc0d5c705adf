"""What runs of tasks are called in Prefect's UI and logs: what they do, and of what.

Names are for people. No cache key has one (`tasks.storage.caching`, which imports this, is in
none), and a parameter that cannot be read costs a name its detail, never a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from copy import copy
from functools import partial
from typing import Any, ParamSpec, TypeVar

from prefect import Task

from ddim_core.common.printable import printable
from ddim_core.common.redaction import redacted

P = ParamSpec("P")
R = TypeVar("R")
Parameters = Mapping[str, Any]

LONGEST, LONGEST_PLACE = 120, 40  # characters
UNREADABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)


def run_name(task: str) -> Callable[..., str]:
    """Returns what names the runs of a task from their parameters, for `task_run_name`."""
    return partial(_named_after, task)


def named(task: Task[P, R], name: str) -> Task[P, R]:
    """Returns the same task, whose runs bear this name: where the caller knows what for."""
    renamed = copy(task)
    renamed.name = bounded(name)  # of a run that waits, or never starts
    renamed.task_run_name = partial(_as_given, renamed.name)
    return renamed


def bounded(text: str, most: int = LONGEST) -> str:
    """Returns a text as one printable line of at most so many characters."""
    line = " ".join(printable(redacted(text)).split())
    return line if len(line) <= most else f"{line[: most - 1]}\N{HORIZONTAL ELLIPSIS}"


def place_name(place: str) -> str:
    """Returns a path or an address, shortened to its end; a digest then tells it from others."""
    line = bounded(place, 10_000)
    if len(line) <= LONGEST_PLACE:
        return line
    digest = hashlib.sha256(place.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"\N{HORIZONTAL ELLIPSIS}{line[8 - LONGEST_PLACE :]}~{digest}"


def _as_given(name: str) -> str:
    return name


def _named_after(task: str, parameters: Parameters) -> str:
    words = task.replace("-", " ")
    try:
        return bounded(f"{words} {DETAILS[task](parameters)}")
    except UNREADABLE:
        return words


def _of_rows(parameters: Parameters) -> str:
    row = parameters["rows"][0]
    return f"{row.checkpoint} {row.checkpoint_digest[:8]}"


def _of_points(parameters: Parameters) -> str:
    return str(parameters["rows"][0]["dataset"])


def _of_lora(parameters: Parameters) -> str:
    return str(parameters["name"])


def _of_record(parameters: Parameters) -> str:
    return str(parameters["record"]["name"])


def _of_place(parameters: Parameters) -> str:
    return place_name(parameters["location"])


def _of_sampler(parameters: Parameters) -> str:
    return f"S={parameters['sampler'].steps}"


def _of_model(parameters: Parameters) -> str:
    model = parameters["spec"].model
    return f"{model.resolution}x{model.resolution} {_of_spec(parameters)}"


def _of_spec(parameters: Parameters) -> str:
    spec = parameters["spec"]
    return f"{spec.steps} steps seed {spec.seed}"


def _of_verdict(parameters: Parameters) -> str:
    about = parameters["about"]
    return f"{about.checkpoint} against {about.against}"


DETAILS: dict[str, Callable[[Parameters], str]] = {
    # data, checkpoints, training
    "prepare-data": lambda p: f"{place_name(p['location'])} {p['split']}",
    "convert-checkpoint": _of_place,
    "fetch-checkpoint": _of_place,
    "reconstruct-average": lambda p: f"std {p['location'].of.std:g}",
    "open-checkpoint": lambda p: p["name"],
    "train-toy": _of_model,
    "train-extractor": _of_spec,
    "train-text2image": _of_spec,
    "train-emoji-judge": _of_spec,
    "train-point-model": lambda p: f"{p['spec'].dataset} {_of_spec(p)}",
    # cells; most of these are named by the flow, which knows more
    "sample-shard": lambda p: f"{p['cell'].label} images {p['start']}-{p['stop'] - 1}",
    "sample-points": lambda p: (
        f"{p['cell'].label} seed {p['cell'].seed} training seed {p['training'].seed}"
    ),
    "trace-points": lambda p: p["cell"].label,
    "score-floor": lambda p: p["dataset"],
    "reconstruct": lambda p: f"{_of_sampler(p)} {p['n']} images",
    "consistency": lambda p: f"S={','.join(str(s.steps) for s in p['samplers'])}",
    "interpolate": _of_sampler,
    "x0-sequence": _of_sampler,
    # reports and logs
    "render-report": _of_rows,
    "publish-report": _of_rows,
    "track-grid": _of_rows,
    "render-allocation": _of_rows,
    "publish-allocation": _of_rows,
    "render-snapshots": _of_rows,
    "publish-snapshots": _of_rows,
    "render-paper-report": _of_rows,
    "publish-paper-report": _of_rows,
    "track-paper": _of_rows,
    "render-point-report": _of_points,
    "publish-point-report": _of_points,
    "track-points": _of_points,
    "write-point-row": lambda p: (
        f"S={p['row']['steps']} eta={p['row']['eta']:g} training seed {p['row']['training_seed']}"
    ),
    "publish-verdict": _of_verdict,
    "track-verdict": lambda p: f"{p['tags']['verdict']} against {p['tags']['verdict.against']}",
    "promote": lambda p: p["name"],
    # LoRA
    "prepare-captioned": _of_place,
    "prepare-photos": _of_place,
    "held-out-folder": lambda p: p["kind"],
    "encode-latents": lambda p: f"{p['spec'].resolution}x{p['spec'].resolution}",
    "embed-prompts": lambda p: f"{len(p['prompts'])} prompts",
    "class-images": lambda p: f"{p['n_images']} of {len(p['prompts'])} prompts",
    "train-lora": lambda p: f"rank {p['spec'].rank} {_of_spec(p)}",
    "export-lora": lambda p: p["title"],
    "write-card": _of_record,
    "track-lora": _of_record,
    "validation-curve": lambda p: f"{len(p['checkpoints'])} checkpoints",
    "draw-prompts": lambda p: f"{p['asked'].role} scale {p['scale']:g}",
    "score-pictures": lambda p: p["asked"].role,
    "judge-base": lambda p: "unseen pairs" if p["unseen"] else "seen pairs",
    "render-lora-report": lambda p: f"{p['rows'][0]['kind']} {p['rows'][0]['data']}",
    "publish-lora-report": _of_lora,
    "track-scorecard": _of_lora,
}
