"""Refusals in words: the name, the value that is wrong, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import fields
from difflib import get_close_matches
from typing import Any
from urllib.parse import urlsplit

from ddim_core.common.redaction import redacted

MOST_SIDE = 8192  # pixels; an image of it takes 200 MB
MOST_STEPS = 10**7  # of a training
MOST_BATCH = 2**16  # images of one forward
MOST_DRAWING_STEPS = 1000  # of pictures: a pipeline's scheduler has no more timesteps
MOST_IMAGES = 10**8
MOST_THREADS = 256  # of one process, and processes or tasks at once
LEAST_SEED_TOO_LARGE = 2**63  # torch takes no larger ones


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        there_is = ", ".join(choice for choice in choices if choice)
        raise ValueError(
            f"{name} is {value!r}{nearest(value, choices)}; it must be one of {there_is}"
        )


def nearest(value: str, choices: Iterable[str]) -> str:
    """Returns the question whether the choice nearest to a wrong value was meant; "" if none is."""
    folded = {_folded(choice): choice for choice in choices if choice}
    wanted = _folded(str(value))
    begin_so = [name for name in folded if len(wanted) > 1 and name.startswith(wanted)]
    found = begin_so or get_close_matches(wanted, folded, n=1, cutoff=0.6)
    return f" (did you mean {folded[found[0]]}?)" if found else ""


def _folded(word: str) -> str:
    """A word without what people write differently: case, hyphens, underscores."""
    return re.sub(r"[\W_]", "", word.lower())


def require_at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")


def require_at_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"{name} is {value}; it must be at most {most}")


def require_side(name: str, value: int, least: int = 1) -> None:
    """Refuses a side of images that is too small, or so long that one of them fills the memory."""
    require_at_least(name, value, least)
    if value > MOST_SIDE:
        raise ValueError(f"{name} is {value}; it must be at most {MOST_SIDE} pixels")


def require_address(name: str, url: str) -> None:
    """Refuses what is no address of a server, by the name of its setting.

    Raises:
        ValueError: If it is not `http://HOST[:PORT][/PATH]`.
    """
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, a bracket that stays open
        is_one = False
    if not is_one or url != url.strip() or re.search(r"\s", url):
        raise ValueError(
            f"{name} is {redacted(url)!r}; it must be the address of a server, such as "
            "http://127.0.0.1:4200/api"
        )


def settle_types(record: Any) -> None:
    """Turns whole numbers given for float fields into floats (fields are annotated as text)."""
    for field in fields(record):
        value = getattr(record, field.name)
        if value is not None and str(field.type).startswith("float"):
            object.__setattr__(record, field.name, float(value) + 0.0)  # -0.0 is 0.0
