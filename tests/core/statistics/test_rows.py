"""Features in shards: read one at a time, in order, whoever made them first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from ddim_core.scores.cell_score import ScoreReference, score_features
from ddim_core.statistics.rows import FeatureRows, places


class LoadedWhenAsked(Sequence[np.ndarray]):
    """Shards that exist only while somebody reads them; counts what was asked for."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays, self.reads = arrays, 0

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return self.arrays[index].copy()


def shards(n: int = 7, size: int = 30, d: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((size + i, d)).astype(np.float32) for i in range(n)]


def test_any_range_of_rows_reads_as_from_one_matrix() -> None:
    parts = shards()
    whole, rows = np.concatenate(parts), FeatureRows.of(parts)
    assert (len(rows), rows.columns) == whole.shape
    for start, stop in [(0, 1), (0, 30), (29, 31), (30, 61), (5, 200), (0, len(whole)), (230, 231)]:
        np.testing.assert_array_equal(rows.read(start, stop), whole[start:stop])
    pieces = [block for _, block in rows.blocks(50)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    assert max(map(len, pieces)) <= 50


def test_places_cover_all_rows_once_in_nearly_equal_pieces() -> None:
    for n, size in [(1, 5), (5, 5), (6, 5), (1000, 37)]:
        found = places(n, size)
        assert [i for piece in found for i in range(n)[piece]] == list(range(n))
        lengths = {piece.stop - piece.start for piece in found}
        assert max(lengths) <= size
        assert max(lengths) - min(lengths) <= 1


def test_scores_have_the_same_bits_from_shards_read_when_asked() -> None:
    reference = ScoreReference.of(shards(1, 200)[0])
    parts = shards(20, 30)
    in_memory = score_features(parts, reference)
    assert score_features(LoadedWhenAsked(parts), reference) == in_memory


def test_scores_have_the_same_bits_whoever_made_which_shard_first() -> None:
    """Shards are made in another order, in other memory: they are folded by index all the same."""
    parts = shards(24, 40, d=8)
    reference = shards(1, 150, d=8)[0]
    made: dict[int, np.ndarray] = {}
    for i in np.random.default_rng(4).permutation(len(parts)):
        made[int(i)] = parts[i].copy(order="F") if i % 2 else parts[i].copy()
    ordered = score_features([made[i] for i in range(len(parts))], reference)
    assert asdict(ordered) == asdict(score_features(parts, reference))


def test_memory_does_not_hold_what_shards_hold() -> None:
    """Kernel, distances and moments of 8,000 images: less memory than one matrix of all pairs."""
    import tracemalloc

    arrays = [np.random.default_rng(i).standard_normal((1000, 8)).astype("f4") for i in range(8)]
    reference = ScoreReference.of(arrays[0])
    tracemalloc.start()
    score_features(LoadedWhenAsked(arrays), reference)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # 8,000^2 distances are 512 MB. What grows with n: 100 indicators and 24 of groups, 8 bytes
    # each, twice for a while: 15 MB; blocks of a thousand pairs are 8 MB, a few at a time.
    assert peak < 80e6


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([], "no shard"),
        ([np.ones((3, 2)), np.ones((3, 4))], "2 and 4 columns"),
        ([np.ones((3, 2)), np.ones((0, 2))], "n, d >= 1"),
        ([np.ones((3, 2)), np.full((3, 2), np.nan)], "every feature must be finite"),
    ],
)
def test_shards_that_are_no_matrix_are_refused(parts: list[np.ndarray], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureRows.of(parts)
