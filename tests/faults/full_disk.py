"""A disk that fills in the middle of a grid (a small tmpfs; needs the right to mount).

python -m tests.faults.full_disk
"""

from __future__ import annotations

import subprocess
from contextlib import suppress

from tests.faults.harness import N_CELLS, N_IMAGES, places, same, say, wait_until

SMALL, LARGE = "16m", "200m"  # the model alone is there twice, stored and unpacked


def main() -> None:
    with places("disk") as (place, undisturbed):
        place.data.mkdir(parents=True)
        disk = str(place.data)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", disk], check=True)
        try:
            process = place.grid()
            wait_until(lambda: place.n_rows >= 2, "two rows")
            filler = place.data / "filler"
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            code = process.wait(400)
            kept = place.n_rows
            say(f"disk full after two rows: exit code {code}, {kept} rows: {place.last_words()}")
            assert code == 1
            filler.unlink()
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", disk], check=True)
            drawn = place.whole_grid()
            say(f"with room again, the next run drew {drawn} of {N_CELLS * N_IMAGES} images")
            assert drawn <= (N_CELLS - kept) * N_IMAGES
            same(place.rows(), undisturbed)
        finally:
            subprocess.run(["umount", "--lazy", disk], check=True)


if __name__ == "__main__":
    main()
