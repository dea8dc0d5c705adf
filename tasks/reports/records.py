"""What a verdict is about, and what it is once it is filed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ComparedPair:
    """Two checkpoints by their names, weights and training steps."""

    checkpoint: str
    weights_digest: str
    training_step: int | None
    against: str
    against_weights_digest: str
    against_training_step: int | None


@dataclass(frozen=True)
class FiledVerdict:
    """A verdict that is written down.

    Attributes:
        digest: Of its rows.
        page: Where it is.
        call, sentences: What was found.
        against: The other checkpoint's name.
        point: The operating point's name; empty without one.
        difference: Of FID, there.
    """

    digest: str
    page: str
    call: str
    sentences: list[str]
    against: str
    point: str
    difference: float | None
