"""A script is run by itself and its images are compared: what is refused, and in which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ddim_core.diffusion.noise import ImageNoise
from ddim_core.images.pixels import to_uint8
from ddim_core.shipping import script
from tasks.shipping.ship import NotTheSameError, compared

# Images that are x_T itself: the noise of a script, without the seconds that torch takes to import.
WHOLE = """
import sys
from pathlib import Path
import numpy as np
from PIL import Image
SEED, SHAPE = 5, (3, 4, 4)
{noise}
folder = Path(sys.argv[sys.argv.index("--out") + 1])
folder.mkdir()
for image in range(3):
    x = normals(image, 0, 48).reshape(SHAPE)
    levels = ((x + 1) * 127.5).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(np.moveaxis(levels, 0, 2)).save(folder / f"{{image:06d}}.png")
"""


def text() -> str:
    noise = Path(script.__file__).with_name("script.noise.txt").read_text()
    return WHOLE.format(noise=noise)


def wanted() -> NDArray[np.uint8]:
    return to_uint8(ImageNoise(5, range(3), (3, 4, 4)).x_T())


def run(folder: Path, script_text: str, images: NDArray[np.uint8]) -> int:
    (folder / "sample.py").write_text(script_text)
    return compared(folder, images)


def test_images_within_one_level_pass(tmp_path: Path) -> None:
    images = wanted()
    assert run(tmp_path, text(), images) == 0
    images[1, 0, 0, 0] ^= 1
    assert run(tmp_path, text(), images) == 1
    images[2, 0, 0, 0] ^= 2
    with pytest.raises(NotTheSameError, match="image 2 differs by 2 levels"):
        run(tmp_path, text(), images)
    with pytest.raises(NotTheSameError, match="where the cell has"):
        run(tmp_path, text(), images[:2])


def test_another_seed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotTheSameError, match="does not draw the cell's images: image 0"):
        run(tmp_path, text().replace("SEED, SHAPE = 5", "SEED, SHAPE = 6"), wanted())


@pytest.mark.parametrize("name", ["ddim_core", "tasks.storage", "flows"])
def test_a_script_that_needs_this_project_fails(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotTheSameError, match=r"sample\.py failed.*ModuleNotFoundError"):
        run(tmp_path, f"import {name}\n{text()}", wanted())
