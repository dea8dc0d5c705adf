"""What `ddim score` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ddim_core.features.registry import ExtractorChoice


@dataclass(frozen=True)
class ScoreRequest:
    """What was asked; see `ddim score --help`."""

    generated: str
    reference: str | None
    features: str | None
    feature_weights: str
    resize: str
    split: str
    resolution: int | None
    save_stats: Path | None
    as_stored: bool = False

    def check(self) -> None:
        """Refuses what cannot be, before any place is opened.

        Raises:
            ValueError: For the first parameter that cannot be.
        """
        if self.reference is None and self.save_stats is None:
            raise ValueError(
                "one set alone has no distance; give a second one, or --save-stats FILE"
            )
        if self.save_stats is not None and self.save_stats.suffix != ".npz":
            raise ValueError(f"save_stats is {str(self.save_stats)!r}; its name must end in .npz")
        self.choice()

    def choice(self) -> ExtractorChoice | None:
        """The extractor asked for; None leaves it to what is compared.

        Raises:
            ValueError: If it cannot be.
        """
        if self.features is None and not (self.feature_weights or self.resize):
            return None
        return ExtractorChoice(self.features or "inception-v3", self.feature_weights, self.resize)
