"""A scheduler in a copy of a pipeline: opened by diffusers as it was written, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest

from ddim_core.shipping.readme import Plain
from tasks.shipping.push import NotPushedError, push, require_free, require_pushable
from tasks.shipping.ready import Ready
from tests.core.pipelines.tiny import PIPELINES, SCALED


def saved(name: str, folder: Path) -> Path:
    PIPELINES[name].make().save_pretrained(folder / name)
    return folder / name


def test_the_copy_opens_with_the_scheduler_and_the_original_is_left(tmp_path: Path) -> None:
    pipeline = saved("flux", tmp_path)
    before = {path: path.read_bytes() for path in pipeline.rglob("*") if path.is_file()}
    wanted = diffusers.FlowMatchHeunDiscreteScheduler(shift=2.0)
    (tmp_path / "copy").mkdir()
    push(pipeline, wanted, tmp_path / "copy")
    assert {path: path.read_bytes() for path in before} == before
    index = json.loads((tmp_path / "copy" / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "FlowMatchHeunDiscreteScheduler"]
    told = diffusers.FlowMatchHeunDiscreteScheduler.load_config(tmp_path / "copy" / "scheduler")
    assert told["shift"] == 2.0


@pytest.mark.parametrize(
    ("name", "scheduler", "told"),
    [
        ("sd15", diffusers.DDIMScheduler(**SCALED, clip_sample=False), "steps_offset = 1"),
        ("ddim", diffusers.HeunDiscreteScheduler(), "DDIMScheduler in place"),
    ],
)
def test_a_class_that_changes_the_scheduler_is_refused(
    tmp_path: Path, name: str, scheduler: object, told: str
) -> None:
    with pytest.raises(NotPushedError, match=told):
        push(saved(name, tmp_path), scheduler, tmp_path / "copy")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_cannot_be_pushed_is_said_before_it_is_tried(tmp_path: Path) -> None:
    plain = Plain("", "", "", ())
    with pytest.raises(ValueError, match="no scheduler of diffusers that does what this cell does"):
        require_pushable(tmp_path, Ready("", None, {}, plain))
    with pytest.raises(ValueError, match=r"a bare network without model_index\.json"):
        require_pushable(tmp_path, Ready("", diffusers.DDIMScheduler(), {}, plain))
    require_free(tmp_path / "new")
    require_free(tmp_path)
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file"):
        with pytest.raises(ValueError, match="holds something"):
            require_free(place)
    with pytest.raises(ValueError, match=r"nothing can be written \(File name too long\)"):
        require_free(tmp_path / (300 * "n"))
