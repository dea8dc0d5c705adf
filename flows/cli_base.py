"""The command `ddim train-base`."""

from __future__ import annotations

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
        from flows.asked import with_defaults
        from flows.base_request import base_request

        spec = base_request(with_defaults("train_base", given))
        from flows import waiting
        from flows.running import run

        line = f"train-base: {spec.steps} steps at {spec.model.resolution} pixels, then its judge"
        with waiting.shown(line):
            result = run("train_base", given)
        _show(result)


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
