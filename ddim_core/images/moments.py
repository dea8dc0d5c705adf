"""A reference of which only statistics are known: a data set without images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ddim_core.common.digest import file_digest
from ddim_core.common.plain_files import is_there
from ddim_core.common.printable import printable
from ddim_core.images.sources.arrays import array_headers, image_keys, is_array_file
from ddim_core.images.sources.source import Row

MOMENTS = {"mu", "sigma"}


def is_moments(place: str) -> bool:
    """Tells whether a place is a file of statistics without images: EDM2's .pkl, or an .npz with
    `mu` and `sigma`.

    Raises:
        ValueError: If it is an .npz that is damaged.
    """
    path = Path(place)
    if not is_there(path):
        return False
    if path.suffix == ".pkl":
        return True
    if not is_array_file(path):
        return False
    headers = array_headers(path)
    return set(headers) >= MOMENTS and not image_keys(headers)


@dataclass(frozen=True)
class MomentsSource:
    """A file of statistics where a data set is named: it has a content and no images."""

    path: Path
    splits: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    licence: str = ""
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return printable(self.path.stem)

    def content(self) -> str:
        return file_digest(self.path)

    def rows(self, split: str) -> Iterator[Row]:
        raise ValueError(
            f"{printable(self.path.name)} holds statistics and no images; a grid of a checkpoint "
            "and `ddim score` take it as their reference, and nothing else does"
        )
