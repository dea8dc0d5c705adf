"""A file of statistics as a reference: only of the features that it is of."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ddim_core.features.registry import ExtractorChoice
from tasks.cells.extractor import ready_extractor
from tasks.cells.extractor_memory import extractor_in_memory, record_of
from tasks.cells.reference import known_reference
from tasks.images.prepare import content_of
from tests.networks import save_clip


def test_an_encoders_own_preprocessing_is_stored_with_it(tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "c")
    about = {"size": {"height": 32, "width": 32}, "image_mean": [0.1] * 3, "image_std": [0.9] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(about))
    stored = ready_extractor.fn(ExtractorChoice(f"transformers:{folder}"))
    assert extractor_in_memory(stored, ()).record == record_of(stored)
    assert record_of(stored).scaling.startswith("(v - [25.5")


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
