"""Other people's files of reference statistics: which of their entries belong to which features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ddim_core.images.sources.arrays import array_headers, image_keys
from ddim_core.safe_files.pickles.arrays import read_array_pickle
from ddim_core.statistics.npz import Statistics, read_statistics

PICKLE = ".pkl"
# Of EDM2's pickles, by extractor; the first is what is meant where none is named.
INCEPTION = "inception-v3"
ENTRIES = {INCEPTION: "fid", "dinov2-vit-l-14": "fd_dinov2"}
# Of an .npz, by extractor: ADM's has the spatial ones beside the others. All else is `mu`, `sigma`.
SPATIAL = {"inception-v3-spatial": ("mu_s", "sigma_s")}
USUAL = ("mu", "sigma")


def is_pickle(path: Path) -> bool:
    """Tells by its name whether a file is read as EDM2's pickle of statistics."""
    return path.suffix == PICKLE


def statistics_for(path: Path, extractor: str) -> Statistics | None:
    """Reads the statistics that a file has for an extractor.

    An .npz of pytorch-fid, clean-fid, EDM or ours has `mu` and `sigma`; ADM's has `mu_s` and
    `sigma_s` of the spatial features, and images, beside; EDM2's .pkl has an entry each of
    Inception and of DINOv2. No code of a pickle runs.

    Args:
        path: The file.
        extractor: Its name; empty for the usual one.

    Returns:
        None where an .npz has none for it, but may have images or features.

    Raises:
        ValueError: If a pickle has none, a file is damaged, or a number is not finite.
    """
    if is_pickle(path):
        return _of_pickle(path, extractor)
    headers = array_headers(path)
    beside_images = bool(image_keys(headers))
    keys = SPATIAL.get(extractor, USUAL)
    if not set(keys) <= set(headers) and not beside_images:
        keys = USUAL  # statistics of one extractor alone, such as ours
    of_another = beside_images and not are_beside_images(extractor or INCEPTION)
    if not set(keys) <= set(headers) or of_another:
        return None
    return read_statistics(path, *keys)


def are_beside_images(extractor: str) -> bool:
    """Tells whether moments that lie beside images are of this extractor: they are of ADM's
    Inception, whatever else the images are sent to."""
    return extractor == INCEPTION or extractor in SPATIAL


def _of_pickle(path: Path, extractor: str) -> Statistics:
    content = read_array_pickle(path)
    extractor = extractor or next(iter(ENTRIES))
    entry = ENTRIES.get(extractor)
    found = content.get(entry) if entry else None
    if not isinstance(found, dict) or not {"mu", "sigma"} <= set(found):
        there = ", ".join(name for name, kept in content.items() if isinstance(kept, dict))
        raise ValueError(
            f"{path.name} holds statistics of {there or 'nothing'}; of {extractor} it "
            f"would hold {entry or 'none, which only ' + ' and '.join(ENTRIES) + ' have'}"
        )
    count = content.get("num_images")
    return Statistics.checked(
        path.name,
        np.asarray(found["mu"]),
        np.asarray(found["sigma"]),
        _whole(count, path) if count is not None else None,
    )


def _whole(count: Any, path: Path) -> int:
    if not isinstance(count, int) or count < 2:
        raise ValueError(f"{path.name} says it is of {count} images; statistics need at least 2")
    return count
