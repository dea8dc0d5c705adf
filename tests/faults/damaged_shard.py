"""Shards of a finished grid with a flipped byte, cut short, and gone.

python -m tests.faults.damaged_shard
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.faults.harness import SHARD, Place, places, same, say


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def main() -> None:
    with places("shard") as (place, undisturbed):
        place.whole_grid()
        files = shards(place)
        files[0].write_bytes(flipped(files[0].read_bytes()))
        files[1].write_bytes(files[1].read_bytes()[:100])
        files[2].unlink()
        drawn = place.whole_grid("--in-prefect")
        say(f"three shards of {SHARD} images spoilt; the next run drew {drawn} images")
        assert drawn == 3 * SHARD
        again = place.whole_grid("--in-prefect")
        say(f"a third run drew {again} images")
        assert again == 0
        same(place.rows(), undisturbed)


def shards(place: Place) -> list[Path]:
    """The files of the first shard of three cells, which no other cell shares."""
    rows = pd.read_parquet(place.data / "results" / "cells").sort_values("cell_digest")
    each = [list(row) for row in rows["image_shards"]]
    alone = [s for row in each for s in row[:1] if sum(s in other for other in each) == 1]
    found = [path for s in alone for path in (place.data / "store" / s[:2]).glob(f"{s}*")]
    assert len(found) >= 3, f"{len(found)} shards lie in the store"
    return found[:3]


if __name__ == "__main__":
    main()
