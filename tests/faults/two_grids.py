"""Two grids at once on one store: the same cells, in two processes.

python -m tests.faults.two_grids
"""

from __future__ import annotations

from tests.faults.harness import N_CELLS, places, same, say


def main() -> None:
    with places("two") as (place, undisturbed):
        both = [place.grid(), place.grid()]
        codes = [process.wait(500) for process in both]
        say(f"two grids at once: exit codes {codes}, {place.n_rows} rows: {place.last_words()}")
        assert codes == [0, 0]
        assert place.n_rows == N_CELLS
        again = place.whole_grid()
        say(f"a third run drew {again} images")
        assert again == 0
        same(place.rows(), undisturbed)


if __name__ == "__main__":
    main()
