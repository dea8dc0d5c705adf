"""One `.safetensors` file of Stable Diffusion as a grid's checkpoint, beside configurations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from tests.core.pipelines.original import original
from tests.core.pipelines.tiny import sdxl_with_texts
from tests.flows.grid.test_grid_samplers import images_of
from tests.flows.grids import GridRun

RunGrid = Callable[..., GridRun]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def xl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny SDXL: `folder`, `file.safetensors` and `prompts.txt`."""
    place, pipeline = tmp_path_factory.mktemp("xl"), sdxl_with_texts()
    pipeline.save_pretrained(place / "folder")
    save_file(original(pipeline), place / "file.safetensors")
    (place / "prompts.txt").write_text("a red ball\n")
    return place


def test_a_single_file_is_scored_as_its_folder_is(
    run_grid: RunGrid, xl: Path, pictures: str
) -> None:
    asked: dict[str, Any] = {
        "prompts": str(xl / "prompts.txt"), "dataset": pictures, "steps": [2], "seed": 51,
        "samplers": ["own"], "etas": [0.0], "n_images": 2, "shard_size": 2,
    }  # fmt: skip
    shown = []
    for place in ({"checkpoint": str(xl / "folder")},
                  {"checkpoint": str(xl / "file.safetensors"), "configuration": str(xl / "folder")},
                 ):  # fmt: skip
        run = run_grid(**asked, **place)
        assert run.state == "Completed", run.message
        assert {row["pipeline"] for row in run.rows} == {"StableDiffusionXLPipeline"}
        shown.append({row["sampler"]: images_of(row["cell_digest"]) for row in run.rows})
    for sampler, images in shown[0].items():
        assert np.abs(images.astype(int) - shown[1][sampler]).max() <= 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "file is a single file of Stable Diffusion.* give, as --configuration, the folder"),
        ({"checkpoint": "folder", "configuration": "folder"}, "belongs to one file of weights"),
        ({"checkpoint": "", "configuration": "folder"}, "and no checkpoint is"),
        ({"configuration": "nowhere"}, "there is no checkpoint folder or file .*nowhere"),
    ],
)
def test_a_single_file_says_what_it_needs(
    server: str, xl: Path, change: dict[str, str], told: str
) -> None:
    from flows.fid_grid import fid_grid

    given = {"checkpoint": "file.safetensors", **change}
    places = {name: str(xl / place) if place else "" for name, place in given.items()}
    with pytest.raises(ValueError, match=told):
        fid_grid(**places, dataset="emoji", steps=[2], features="pixels", n_images=4)
