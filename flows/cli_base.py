"""The command `ddim train-base`."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from flows.cli_options import one_sentence, option, require_writable


def train_base(
    steps: Annotated[int | None, option("Optimiser steps in all.")] = None,
    resolution: Annotated[int | None, option("Pixels, a multiple of 8 [16].")] = None,
    batch_size: Annotated[int | None, option("Pictures per step [16].")] = None,
    learning_rate: Annotated[float | None, option("Largest rate [1e-3].")] = None,
    guidance: Annotated[float | None, option("Of the pictures that are judged [2].")] = None,
    picture_steps: Annotated[int | None, option("Their sampling steps [25].")] = None,
    judge_steps: Annotated[int | None, option("Training steps of the judge [700].")] = None,
    output: Annotated[str | None, option("Folder to copy it to [below DDIM_DATA].")] = None,
    seed: Annotated[int | None, option("Keys weights, batches and noise [0].")] = None,
) -> None:
    """Train the small text-to-image base of the LoRA commands, and judge its pictures."""
    given: dict[str, Any] = {k: v for k, v in dict(locals()).items() if v is not None}
    with one_sentence():
        require_writable()
        from flows.train_base import base_spec
        from flows.train_base import train_base as train_base_flow

        bound = inspect.signature(train_base_flow.fn).bind(**given)
        bound.apply_defaults()
        names = inspect.signature(base_spec).parameters
        base_spec(**{name: bound.arguments[name] for name in names})
        _show(train_base_flow(**given))


def _show(result: dict[str, Any]) -> None:
    for name in ("seen", "unseen"):
        found = result[name]
        shares = ", ".join(
            f"{q} {100 * found[q]['share']:.1f} % "
            f"({100 * found[q]['low']:.1f} to {100 * found[q]['high']:.1f})"
            for q in ("subject", "background", "style")
        )
        typer.echo(f"{name} pairs, N = {found['n_images']}: {shares}")
    typer.echo(f"base: {result['folder']}")
