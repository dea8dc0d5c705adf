"""Scales of guidance, each at all noise levels or between two: `4`, `4@0.2-3`; and samplers that
are drawn at one of them alone: `unipc@4@0.2-3`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

NUMBER = r"\d+\.?\d*(?:e[+-]?\d+)?"
SPELLED = re.compile(rf"({NUMBER})(?:@({NUMBER})-({NUMBER}))?")
Interval = tuple[float, ...]


def parse_guidance(given: float | str) -> tuple[float, Interval]:
    """Returns a scale and its low and high noise level, or none where it is for all.

    Args:
        given: A number, or `SCALE@LOW-HIGH`.

    Raises:
        ValueError: If it is neither.
    """
    if not isinstance(given, str):
        return float(given), ()
    found = SPELLED.fullmatch(given.strip())
    if found is None:
        raise ValueError(
            f"{given!r} is no scale of guidance; give a number of 0 or more, or one that holds "
            "between two noise levels, such as 4@0.2-3"
        )
    scale, *levels = (float(number) for number in found.groups() if number is not None)
    if levels and scale == 1.0:
        raise ValueError(f"{given!r} has noise levels, and 1 is no guidance; leave them out")
    if levels and not levels[0] < levels[1]:
        raise ValueError(f"{given!r} must have a low and a higher noise level, such as 4@0.2-3")
    return scale, tuple(levels)


def guidance_text(scale: float, interval: Interval) -> str:
    """Returns a scale with its noise levels as `parse_guidance` reads it."""
    numbers = [f"{number:.12g}" for number in (scale, *interval)]
    return "{}@{}-{}".format(*numbers) if interval else numbers[0]


def apart(text: str) -> tuple[str, float | str | None]:
    """Returns a sampler's name, and the guidance that it is drawn at alone: `unipc@4@0.2-3`; None
    where it names none.

    Raises:
        ValueError: As `parse_guidance`.
    """
    name, at, guidance = text.partition("@")
    return name.strip(), _spelled(guidance) if at else None


def together(name: str, guidance: float | str | None) -> str:
    """Returns the text that `apart` takes apart."""
    if guidance is None:
        return name
    return f"{name}@{guidance_text(*parse_guidance(guidance))}"


def _spelled(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    scale, interval = parse_guidance(given)
    return guidance_text(scale, interval) if interval else scale


GuidanceText = Annotated[float | str, BeforeValidator(_spelled)]
"""A number, or text that says where it holds."""
