"""The same two sets of images by every extractor and resize at hand: what the choice alone does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ddim_core.features.registry import PRETRAINED, ExtractorChoice, every_choice
from tasks.score_command.request import ScoreRequest
from tasks.score_command.run import run_score

SHOWN = ("n_features", "fid", "fid_low", "fid_high", "kid", "kid_low", "kid_high", "n_images",
         "n_reference")  # fmt: skip


def score_matrix(request: ScoreRequest, scored: dict[str, Any]) -> list[dict[str, Any]]:
    """Scores what was scored again, by every other protocol at hand.

    Features are kept in the store, so that a second time costs little.

    Args:
        request: What was asked.
        scored: What `run_score` returned for it.

    Returns:
        One line a protocol, its own first: `extractor`, `resize`, and the scores in `SHOWN`.

    Raises:
        ValueError: If one of the sets has no images.
    """
    protocol = scored["protocol"]
    sizes = {protocol["native_size"], protocol["reference_native_size"]}
    if None in sizes:
        raise ValueError("a matrix of protocols needs two sets of images; one of these has none")
    values = 0
    if len(sizes) == 1 and "mixed" not in sizes:  # else pixels are no features
        height, width = protocol["native_size"].split("x")
        values = int(height) * int(width) * 3
    lines = [_line(scored)]
    for choice in every_choice(_own(request), values or 10**9):
        if (choice.name, choice.resize) != (protocol["extractor"], protocol["resize"]):
            again = replace(request, features=choice.name, feature_weights=choice.weights,
                            resize=choice.resize, save_stats=None)  # fmt: skip
            lines.append(_line(run_score(again)))
    return lines


def _own(request: ScoreRequest) -> ExtractorChoice:
    """The extractor whose other resizes are shown: where none is named, none needs weights."""
    choice = request.choice()
    return choice if choice and choice.name in PRETRAINED else ExtractorChoice("pixels")


def _line(scored: dict[str, Any]) -> dict[str, Any]:
    protocol = scored["protocol"]
    named = {"extractor": protocol["extractor"], "resize": protocol["resize"]}
    return named | {name: scored[name] for name in SHOWN}
