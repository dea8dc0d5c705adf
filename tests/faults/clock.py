"""A wall clock that is set back and forth in the middle of a grid (needs a C compiler).

python -m tests.faults.clock
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.faults.harness import N_CELLS, N_IMAGES, places, same, say, wait_until

DAY = 86_400
STEPS = (-2 * DAY, 3 * DAY, 0)  # seconds off the true time; the monotonic clock cannot be set


def main() -> None:
    with places("clock") as (place, undisturbed):
        offset, library = place.folder / "offset", place.folder / "clock.so"
        offset.write_text("0\n")
        source = Path(__file__).with_suffix(".c")
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True
        )
        shifted = place.told(LD_PRELOAD=str(library), DDIM_CLOCK=str(offset))
        process = shifted.grid()
        for n_rows, step in enumerate(STEPS, start=1):
            wait_until(lambda n=n_rows: place.n_rows >= n, f"row {n_rows}")
            offset.write_text(f"{step}\n")
            say(f"after {n_rows} rows the clock was set {step / DAY:+.0f} days off")
        code = process.wait(400)
        say(f"exit code {code}, {place.n_rows} rows")
        assert code == 0, place.last_words()
        assert place.n_rows == N_CELLS
        drawn = place.whole_grid()
        say(f"the next run, by the true clock, drew {drawn} of {N_CELLS * N_IMAGES} images")
        assert drawn == 0
        same(place.rows(), undisturbed)


if __name__ == "__main__":
    main()
