"""A file of statistics as a reference: only of the features that it is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddim_core.features.registry import ExtractorChoice
from tasks.cells.extractor import ready_extractor
from tasks.cells.reference import known_reference
from tasks.images.prepare import content_of
from tests.networks import save_clip


def test_statistics_of_another_number_of_features_are_refused(
    tmp_path: Path,
) -> None:
    extractor = ready_extractor.fn(ExtractorChoice("clip-vit-b-32", str(save_clip(tmp_path / "c"))))
    place = tmp_path / "other.npz"
    np.savez(place, mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(ValueError, match=r"other\.npz has 3 features and clip-vit-b-32 24"):
        known_reference.fn(content_of(str(place)), str(place), extractor, 16, 3)
    np.savez(place, mu=np.zeros(24), sigma=np.eye(24))
    known = known_reference.fn(content_of(str(place)), str(place), extractor, 16, 3)
    assert (known.features.kind, known.features.d, known.images.n) == ("statistics", 24, 0)
    assert known.images.artifact == known.features.artifact
