"""A stored score, shards judged by it, and what is not judged again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddim_core.diffusion.specs import Execution
from ddim_core.image_scores.registry import SCORES, ImageScoreChoice
from ddim_core.image_scores.scorer import ScoreRecord
from tasks.image_scores.judge import JudgedImages, judge_images, values_of
from tasks.image_scores.mean import mean_of_images
from tasks.image_scores.ready import StoredScore, ready_image_score
from tasks.images.stored_prompts import KIND, store_prompts
from tasks.storage import places, store
from tests.core.image_scores import tiny
from tests.core.image_scores.folders import aesthetic_folder, clip_folder

PROMPTS = ["a red cat", "a dog", "blue"]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    return tmp_path / "data"


def judged(score: StoredScore, pictures: np.ndarray, start: int = 0) -> JudgedImages:
    shard = store.put_arrays({"images": pictures}, "shard")
    prompts = store.ArtifactRef(store_prompts(PROMPTS), KIND) if score.needs_prompts else None
    return judge_images.fn(shard, score, prompts, start, Execution())


def test_a_longer_shard_has_only_its_new_images_judged(data: Path, tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    score = ready_image_score.fn(ImageScoreChoice("clip-score", str(folder)))
    assert (score.column, score.needs_prompts) == ("clip_score", True)
    pictures = np.concatenate([tiny.pictures("small"), tiny.pictures("small")[::-1]])
    first = judged(score, pictures[:5])
    longer = judged(score, pictures)
    assert (first.judged, longer.judged, longer.n) == (5, 7, 12)
    # Image k was drawn for prompt k mod n, and its number has no part of its shard.
    asked = [PROMPTS[k % 3] for k in range(12)]
    alone = SCORES["clip-score"].open(folder)
    np.testing.assert_array_equal(values_of([longer.artifact]), alone(pictures, asked))
    second = judged(score, pictures[5:], start=5)
    both = values_of([first.artifact, second.artifact])
    np.testing.assert_array_equal(both, values_of([longer.artifact]))
    assert judged(score, pictures[:7]).judged == 2
    # A shard that begins alike and goes on otherwise is judged anew.
    other = np.concatenate([pictures[:2], 255 - pictures[2:5]])
    assert judged(score, other).judged == 5

    cell = mean_of_images.fn([first, second], 3, [6, 6])
    assert cell.mean.value == pytest.approx(both.astype(float).mean())
    assert (cell.n_prompts, cell.shards) == (3, [first.artifact, second.artifact])


def test_a_score_is_known_by_its_weights_and_not_by_its_place(data: Path, tmp_path: Path) -> None:
    one, moved = (aesthetic_folder(tmp_path / name) for name in ("one", "moved"))
    score, same = (
        ready_image_score.fn(ImageScoreChoice("aesthetic", str(place))) for place in (one, moved)
    )
    assert score == same
    record = ScoreRecord.from_bytes(store.get(score))
    assert record.digest == score.artifact
    assert (record.score, record.texts) == ("aesthetic", "")
    import torch

    state = tiny.head_state()
    torch.save(state | {"layers.7.bias": state["layers.7.bias"] + 1.0}, moved / "linear.pth")
    other = ready_image_score.fn(ImageScoreChoice("aesthetic", str(moved)))
    assert other.artifact != score.artifact
    pictures = tiny.pictures("small")
    found = [values_of([judged(s, pictures).artifact]) for s in (score, other)]
    np.testing.assert_allclose(found[1] - found[0], 1.0, rtol=0, atol=1e-5)
