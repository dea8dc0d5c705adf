"""Pickles of arrays: EDM2's form is read, and whatever would run or lie is refused in words."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddim_core.safe_files.pickles.arrays import read_array_pickle

STATISTICS = {
    "num_images": 5,
    "fid": {"mu": np.arange(3.0), "sigma": np.asfortranarray(np.arange(9.0).reshape(3, 3))},
    "fd_dinov2": {"mu": np.arange(2, dtype=np.float32), "sigma": np.eye(2)},
}


class Planted:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def written(folder: Path, content: Any, protocol: int = 4) -> Path:
    place = folder / "stats.pkl"
    place.write_bytes(pickle.dumps(content, protocol))
    return place


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_what_numpy_pickles_is_read_with_its_bits(tmp_path: Path, protocol: int) -> None:
    found = read_array_pickle(written(tmp_path, STATISTICS, protocol))
    assert found["num_images"] == 5
    for entry in ("fid", "fd_dinov2"):
        for name, array in STATISTICS[entry].items():  # type: ignore[attr-defined]
            np.testing.assert_array_equal(found[entry][name], array)
            assert found[entry][name].dtype == array.dtype
    counted = read_array_pickle(written(tmp_path, {"num_images": np.int64(7)}, protocol))
    assert counted == {"num_images": 7}


def test_no_name_but_numpys_is_known(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for content in ({"fid": Planted(ran)}, {"a": np.array([Planted(ran)], dtype=object)}):
        with pytest.raises(ValueError, match=r"stats\.pkl is no pickle of plain arrays"):
            read_array_pickle(written(tmp_path, content))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "it must hold names with arrays"),
        ({1: np.zeros(2)}, "where a name must be"),
        ({"a": {"b": {"c": {"d": 1}}}}, "at most three levels deep"),
        ({"a": [1, 2]}, "a is a list"),
        ({"a": np.array(["text"])}, "numbers of the type"),
        ({"a": np.zeros(2, dtype="c16")}, "numbers of the type"),
        ({"a": np.zeros(2, dtype=">f8")}, "numbers of the type"),
    ],
)
def test_what_is_no_plain_statistics_is_said(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_array_pickle(written(tmp_path, content))


def test_damage_ends_in_words_or_in_numbers(tmp_path: Path) -> None:
    whole = written(tmp_path, STATISTICS).read_bytes()
    random = np.random.default_rng(0)
    for place in [*random.integers(0, len(whole), 300), *range(0, 60)]:
        changed = bytearray(whole)
        changed[place] ^= 1 << int(random.integers(0, 8))
        (tmp_path / "bad.pkl").write_bytes(bytes(changed))
        with suppress(ValueError):
            assert isinstance(read_array_pickle(tmp_path / "bad.pkl"), dict)
    (tmp_path / "bad.pkl").write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"bad\.pkl is no pickle of plain arrays"):
        read_array_pickle(tmp_path / "bad.pkl")
