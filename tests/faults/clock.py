"""A clock that is set back and forth in the middle of a grid (needs Debian's package faketime).

python -m tests.faults.clock
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tests.faults.harness import N_CELLS, N_IMAGES, places, same, say, wait_until

STEPS = ("-2d", "+3d", "+0")  # of the wall clock; the monotonic clock cannot be set


def main() -> None:
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    with places("clock") as (place, undisturbed):
        offset = place.folder / "offset"
        offset.write_text("+0\n")
        place = replace(place, more={
            "LD_PRELOAD": str(library), "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        })  # fmt: skip
        process = place.grid()
        for n_rows, step in enumerate(STEPS, start=1):
            wait_until(lambda n=n_rows: place.n_rows >= n, f"row {n_rows}")
            offset.write_text(f"{step}\n")
            say(f"after {n_rows} rows the clock was set to {step}")
        code = process.wait(400)
        say(f"exit code {code}, {place.n_rows} rows")
        assert code == 0, place.last_words()
        assert place.n_rows == N_CELLS
        drawn = place.whole_grid()
        say(f"the next run drew {drawn} of {N_CELLS * N_IMAGES} images")
        assert drawn == 0
        same(place.rows(), undisturbed)


if __name__ == "__main__":
    sys.exit(main())
