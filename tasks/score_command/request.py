"""What `ddim score` was asked for."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ddim_core.common.checks import require_choice, require_side
from ddim_core.common.plain_files import is_there, require_makeable
from ddim_core.devices.names import CPU
from ddim_core.features.registry import ExtractorChoice
from ddim_core.images.load import open_source
from ddim_core.images.sources.arrays import is_array_file
from ddim_core.images.sources.table import HUB_ID
from ddim_core.peers.catalogue import peer_named
from ddim_core.statistics.reference_files import is_pickle
from tasks.cells.lookup import find_cell, looks_like_cell
from tasks.machine.device import require_device


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
    per_class: bool = False
    peer: str = ""
    device: str = CPU  # of the feature networks

    def check(self) -> None:
        """Refuses what cannot be, before any place is opened.

        Raises:
            ValueError: For the first parameter that cannot be.
        """
        if self.reference is None and self.save_stats is None:
            raise ValueError(
                "one set alone has no distance; give a second one, or --save-stats FILE"
            )
        if self.reference is None and self.per_class:
            raise ValueError("per-class scores need two sets of images; give a second one")
        if self.save_stats is not None and self.save_stats.suffix != ".npz":
            raise ValueError(f"save_stats is {str(self.save_stats)!r}; its name must end in .npz")
        if self.save_stats is not None and not os.path.lexists(self.save_stats):
            require_makeable(self.save_stats, "save_stats")
        if self.resolution is not None:
            require_side("resolution", self.resolution)
        if self.peer:
            self._check_peer()
        else:
            self.choice()
        for name in (self.generated, self.reference):
            if name is not None:
                _require_place(name)
        require_device(self.device)

    def _check_peer(self) -> None:
        spaces = [space.extractor for space in peer_named(self.peer).spaces]
        if self.features is not None:
            require_choice("features", self.features, tuple(spaces))
        if self.resize:
            raise ValueError(f"resize is {self.resize!r}, but {self.peer} has its own")
        if self.reference is None:
            raise ValueError(f"{self.peer} compares two sets; give a second one")

    def choice(self) -> ExtractorChoice | None:
        """The extractor asked for; None leaves it to what is compared.

        Raises:
            ValueError: If it cannot be.
        """
        if self.features is None and not (self.feature_weights or self.resize):
            return None
        return ExtractorChoice(self.features or "inception-v3", self.feature_weights, self.resize)


def _require_place(name: str) -> None:
    """Refuses what is nowhere; what a place holds is looked at later."""
    path = Path(name)
    if path.is_dir() or is_there(path):
        return
    if is_array_file(path) or is_pickle(path):
        raise ValueError(f"there is no file {name!r}")
    if looks_like_cell(name):
        find_cell(name)
    elif not HUB_ID.fullmatch(name):
        open_source(name)
