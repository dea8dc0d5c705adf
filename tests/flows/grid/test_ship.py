"""`ddim ship`: a cell handed over is drawn again by a fresh process without this project."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from safetensors.torch import save_file
from typer.testing import CliRunner

from flows.cli.app import app
from tests.core.pipelines.tiny import PIPELINES
from tests.flows.grids import GridRun

pytestmark = pytest.mark.timeout(300)
RunGrid = Callable[..., GridRun]


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def cells_of(run: GridRun) -> dict[str, str]:
    """Cell digests by sampler."""
    assert run.state == "Completed", run.message
    return {row["sampler"]: row["cell_digest"] for row in run.rows}


@pytest.fixture(scope="module")
def cells(run_grid: RunGrid) -> dict[str, str]:
    """Cells of a bare U-Net: of our own sampler and of a scheduler, both noisy on the way."""
    return cells_of(run_grid(samplers=["ddim", "euler_a"], etas=[1.0], steps=[3], seed=41))


def snippet_of(folder: Path) -> str:
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run_snippet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the lines of plain diffusers where they lie; returns the images that they draw."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(compile(snippet_of(folder), "README.md", "exec"), names)
    return names["images"]


@pytest.mark.usefixtures("shipped_by_forks")
def test_a_native_cell_is_handed_over_with_a_scheduler_that_takes_its_steps(
    cells: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = ddim("ship", cells["ddim"][:12])
    assert done.exit_code == 0, done.stderr
    folder = Path(done.stdout.split(":")[0])
    assert folder.name == cells["ddim"][:12]
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "evidence.json", "sample.py", "scheduler_config.json",
    }  # fmt: skip
    script = (folder / "sample.py").read_text()
    assert re.search(r"^(import|from) (ddim_core|tasks|flows)", script, re.MULTILINE) is None
    told = json.loads((folder / "evidence.json").read_text())
    assert told["cell"] == cells["ddim"]
    assert told["drawn_again"]["images"] == 8
    assert [other["cell"] for other in told["compared"]] == [cells["euler_a"]]
    # 1000 is no multiple of 3, so that DDIMScheduler would go elsewhere.
    assert told["scheduler"] == "DDPMScheduler"
    assert run_snippet(folder, monkeypatch).shape == (4, 1, 8, 8)


def test_a_cell_of_a_scheduler_is_handed_over_and_one_that_differs_is_not(
    cells: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.shipping import ship

    place = tmp_path / "shipped"
    monkeypatch.chdir(tmp_path)
    done = ddim("ship", cells["euler_a"], "--out", "shipped")
    assert done.exit_code == 0, done.stderr
    config = json.loads((place / "scheduler_config.json").read_text())
    assert config["_class_name"] == "EulerAncestralDiscreteScheduler"
    assert run_snippet(place, monkeypatch).shape == (4, 1, 8, 8)
    assert ddim("ship", cells["euler_a"], "--out", str(place)).exit_code == 2

    def differing(*_: object) -> int:
        raise ship.NotTheSameError("sample.py does not draw the cell's images")

    monkeypatch.setattr(ship, "compared", differing)
    refused = ddim("ship", cells["euler_a"], "--out", str(tmp_path / "planted"))
    assert refused.exit_code == 1
    assert "does not draw the cell's images" in refused.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shipped"]


@pytest.mark.usefixtures("shipped_by_forks")
def test_a_pipeline_is_handed_over_with_its_scheduler_in_a_copy(
    run_grid: RunGrid, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import StableDiffusionXLPipeline

    PIPELINES["sdxl"].make().save_pretrained(tmp_path / "sdxl")
    save_file(PIPELINES["sdxl"].conditions(range(8)), tmp_path / "prompts.safetensors")
    run = run_grid(
        checkpoint=str(tmp_path / "sdxl"), prompts=str(tmp_path / "prompts.safetensors"),
        dataset=pictures, steps=[2], seed=43, samplers=["dpmpp_2m_sde/karras"], etas=[0.0],
        guidance=[3.0], guidance_interval=[0.0, 1.0], n_images=6, shard_size=6,
    )  # fmt: skip
    (cell,) = cells_of(run).values()
    assert (run.rows[0]["nfe"], run.rows[0]["guidance_interval"]) == (3, "0,1")
    place, copy = tmp_path / "shipped", tmp_path / "copy"
    done = ddim("ship", cell, "--out", str(place), "--push", str(copy))
    assert done.exit_code == 0, done.stderr
    index = json.loads((copy / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "DPMSolverMultistepScheduler"]
    opened = StableDiffusionXLPipeline.from_pretrained(copy, tokenizer=None, tokenizer_2=None)
    assert opened.scheduler.config.use_karras_sigmas
    assert opened.scheduler.config.algorithm_type == "sde-dpmsolver++"
    assert (place / "conditions.safetensors").exists()
    assert "guidance_scale=3.0" in snippet_of(place)
    assert "GUIDED = (False, True)" in snippet_of(place)
    assert "from 0 to 1 alone, at step 2 of 2" in (place / "README.md").read_text()
    told = json.loads((place / "evidence.json").read_text())
    assert told["setting"]["guidance_interval"] == "0,1"
    (image,) = run_snippet(place, monkeypatch)
    assert image.size == (16, 16)


def test_what_cannot_be_handed_over_is_refused_in_words(
    cells: dict[str, str],
) -> None:
    from dataclasses import replace

    from tasks.shipping.cell import scored_cell
    from tasks.storage import places
    from tasks.storage.cell_rows import read_rows

    done = ddim("ship", "0123abcd")
    assert done.exit_code == 2
    assert "is no cell" in done.stderr
    (row,) = read_rows([cells["ddim"]]).rows
    with pytest.raises(ValueError, match="does not say all that drew its images"):
        scored_cell(replace(row, protocol="{}"), 8)
    with pytest.raises(ValueError, match="does not say all that drew its images"):
        scored_cell(replace(row, seed=42), 8)
    shard = row.image_shards[0]
    place = Path(places.data_url("store", shard[:2], shard))
    kept = place.read_bytes()
    try:
        place.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
        done = ddim("ship", cells["ddim"])
        assert done.exit_code == 1
        assert "is damaged; run its grid again" in done.stderr
    finally:
        place.write_bytes(kept)
