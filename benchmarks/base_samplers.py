"""Which sampler should the embedded text-to-image base ship with? The README's example.

Run: python -m benchmarks.base_samplers FOLDER. Writes the real pictures (a folder a subject) and
the prompts to FOLDER, then runs the grid that the README shows: six samplers, four step counts,
three guidance scales. About half an hour on two cores.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from PIL import Image

from ddim_core.text2image.scenes import base_scenes, draw

BASE, RESOLUTION = Path(__file__).parents[1] / "data" / "base", 16
GRID = {
    "samplers": "own,ddim,dpmpp_2m,unipc,deis,euler", "etas": "0", "steps": "4,6,10,16",
    "guidance": "1,2,4", "n-images": "192", "shard-size": "96", "features": "classifier",
}  # fmt: skip


def write(folder: Path, resolution: int = RESOLUTION) -> None:
    """Writes Twemoji's pictures that bases are trained on, and a prompt for each picture."""
    scenes = base_scenes()
    for scene in scenes:
        place = folder / "pictures" / scene.subject.replace(" ", "-")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw(scene, resolution)).save(place / f"{scene.background}.png")
    # In an order that has every subject before any comes again.
    turns = sorted(range(len(scenes)), key=lambda i: (i % 7, i))
    prompts = "\n".join(scenes[i].caption() for i in turns)
    (folder / "prompts.txt").write_text(prompts + "\n")


def main() -> int:
    folder = Path(sys.argv[1])
    write(folder)
    options = [word for name, value in GRID.items() for word in (f"--{name}", value)]
    command = [
        sys.executable, "-m", "flows.cli.entry", "grid", "--checkpoint", str(BASE),
        "--dataset", str(folder / "pictures"), "--prompts", str(folder / "prompts.txt"), *options,
    ]  # fmt: skip
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
