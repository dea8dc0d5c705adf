"""A cell's digest in, a folder out: written, tried in a fresh process, and only then given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ddim_core.decisions.row import CellRow
from ddim_core.diffusion.specs import SamplerSpec
from ddim_core.shipping.evidence import as_json, evidence_of
from ddim_core.shipping.readme import readme
from ddim_core.shipping.script import CONDITIONS
from tasks.cells.lookup import find_cell
from tasks.checkpoints import memory, pipelines
from tasks.shipping.cell import AGAIN, ScoredCell, scored_cell
from tasks.shipping.network import ready_native, ready_scheduled
from tasks.shipping.pipeline import ready_pipeline
from tasks.shipping.push import push, require_free, require_pushable
from tasks.shipping.ready import Ready
from tasks.storage import places, stages, store
from tasks.storage.cell_rows import read_rows
from tasks.storage.store import ArtifactRef, DamagedArtifactError

N_IMAGES = 8
LEVELS = 1  # of 255: what rounding of another order of the same sums can move
DIGITS = 12
SCRIPT = "sample.py"
# Runs a script as `python -I script ...` does, with none of this project's packages to be found
# even where they are installed beside diffusers.
ALONE = """
import runpy, sys
for name in ("ddim_core", "tasks", "flows"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class NotTheSameError(RuntimeError):
    """A cell's script does not draw the cell's images, so that nothing is handed over."""


@dataclass(frozen=True)
class Shipped:
    """What was handed over.

    Attributes:
        folder: Where it lies.
        files: Their names.
        n_images: So many were drawn again.
        levels: The largest difference of a pixel to the cell's images, of 255.
        scheduler: The class of the scheduler; empty where diffusers has none that does it.
        pushed: The copy of the pipeline, where one was asked for.
    """

    folder: Path
    files: list[str]
    n_images: int
    levels: int
    scheduler: str
    pushed: Path | None


def ship_cell(prefix: str, out: Path | None = None, push_to: Path | None = None) -> Shipped:
    """Writes what somebody needs to draw with a cell's setting, once it is proven to draw the cell.

    Args:
        prefix: The cell's digest, or a beginning of it.
        out: A new or empty folder; None is DDIM_DATA/shipped/<short digest>, which is written anew.
        push_to: A new or empty folder for a copy of the pipeline with the scheduler in it.

    Raises:
        ValueError: If there is no such cell, its row is of an older version, or a folder holds
            something.
        StoreError: If its images or its checkpoint are no longer in the store.
        NotTheSameError: If the script fails, or draws other images.
        NotPushedError: If the pipeline cannot take the scheduler.
    """
    for folder in filter(None, (out, push_to)):
        require_free(folder)
    row = find_cell(prefix)
    scored = scored_cell(row, N_IMAGES)
    _require_device(row)
    try:
        pipeline = store.get_folder(scored.checkpoint)
    except DamagedArtifactError as error:
        raise DamagedArtifactError(f"the checkpoint: {error}; {AGAIN}") from error
    stages.begin("opening the checkpoint")
    ready = _maker_of(scored)(scored)
    if push_to is not None:
        require_pushable(pipeline, ready)
    _forget_networks()
    folder = (out or places.local_dir("shipped", row.cell_digest[:DIGITS])).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        draft = Path(place, "shipped")
        draft.mkdir()
        levels = _written_and_tried(scored, ready, draft, pipeline)
        if push_to is not None:
            push(pipeline, ready.scheduler, push_to)
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)
    files = sorted(path.name for path in folder.iterdir())
    return Shipped(folder, files, len(scored.images), levels, ready.plain.scheduler, push_to)


def _maker_of(scored: ScoredCell) -> Callable[[ScoredCell], Ready]:
    sampler = scored.cell.sampler
    if isinstance(sampler, SamplerSpec):
        return ready_native
    return ready_pipeline if sampler.pipeline else ready_scheduled


def _written_and_tried(scored: ScoredCell, ready: Ready, draft: Path, pipeline: Path) -> int:
    """Writes all files, runs the script, and returns how far its images are from the cell's."""
    (draft / SCRIPT).write_text(ready.script, encoding="utf-8")
    if ready.conditions:
        (draft / CONDITIONS).write_bytes(ready.conditions_file())
    if ready.scheduler is not None:
        ready.scheduler.save_pretrained(draft)
    for lora in ready.loras:
        (draft / lora.file).write_bytes(store.get(ArtifactRef(lora.digest, "lora")))
    stages.begin("drawing the images again in a fresh process")
    levels = compared(draft, scored.images)
    evidence = evidence_of(scored.row, read_rows().rows)
    text = readme(evidence, ready.plain, str(pipeline), len(scored.images))
    (draft / "README.md").write_text(text, encoding="utf-8")
    more = {
        "scheduler": ready.plain.scheduler or None,
        "loras": [vars(lora) for lora in ready.loras],
        "drawn_again": {"images": len(scored.images), "largest_difference_in_levels": levels},
    }
    (draft / "evidence.json").write_text(as_json(evidence, more), encoding="utf-8")
    return levels


def compared(folder: Path, images: NDArray[np.uint8]) -> int:
    """Runs a folder's script in a fresh process without this project, and compares its images.

    Args:
        folder: With sample.py and what it reads.
        images: What it has to draw, uint8 [n, height, width, channels].

    Returns:
        The largest difference of a pixel, in levels of 255.

    Raises:
        NotTheSameError: If the script fails, or an image differs by more than one level.
    """
    with tempfile.TemporaryDirectory() as elsewhere:
        command = [sys.executable, "-I", "-c", ALONE, str(folder / SCRIPT), "--out", "drawn"]
        offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        done = subprocess.run(
            command, cwd=elsewhere, env=os.environ | offline, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise NotTheSameError(f"sample.py failed, so that nothing is handed over: {said[-1]}")
        drawn = [
            np.asarray(Image.open(path)) for path in sorted(Path(elsewhere, "drawn").iterdir())
        ]
    found = np.stack([picture if picture.ndim == 3 else picture[..., None] for picture in drawn])
    if found.shape != images.shape:
        raise NotTheSameError(
            f"sample.py draws {found.shape} where the cell has {images.shape} (images, height, "
            "width, channels), so that nothing is handed over"
        )
    apart = np.abs(found.astype(int) - images.astype(int))
    if apart.max() > LEVELS:
        first = int(np.argmax(apart.reshape(len(apart), -1).max(axis=1) > LEVELS))
        raise NotTheSameError(
            f"sample.py does not draw the cell's images: image {first} differs by "
            f"{apart[first].max()} levels of 255, so that nothing is handed over; the libraries or "
            f"the machine differ from those that drew the cell, or it is damaged: {AGAIN}"
        )
    return int(apart.max())


def _require_device(row: CellRow) -> None:
    """Makes sure that the cell was drawn on a CPU: what is handed over is proven there.

    Raises:
        ValueError: If it was not.
    """
    if row.images_at_once is not None or row.device != "cpu":
        raise ValueError(
            f"the cell was drawn on a card ({row.device}, {row.dtype}), whose bits a script of its "
            "own does not repeat; run its grid with --device cpu and ship the cell that it then has"
        )


def _forget_networks() -> None:
    """Makes room for the process that opens the checkpoint once more."""
    memory.forget()
    pipelines.forget()
