"""What somebody encoded prompts to: looked over before a grid begins."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from tasks.checkpoints.pipelines import pipeline_digest, store_pipeline
from tasks.sampling.conditions import store_conditions
from tasks.storage.store import ArtifactRef
from tests.core.pipelines.tiny import PIPELINES


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    folder = tmp_path_factory.mktemp("conditions") / "sdxl"
    PIPELINES["sdxl"].make().save_pretrained(folder)
    return store_pipeline.fn(pipeline_digest(folder), str(folder))


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("prompt_embeds", lambda x: x * float("nan"), "prompt_embeds in prompts.safetensors has 3"),
        ("pooled_prompt_embeds", lambda x: x / 0.0, "are not finite; encode the prompts again"),
        ("prompt_embeds", lambda x: x[:, :0], "prompt_embeds in prompts.safetensors is empty, of"),
        ("prompt_embeds", lambda x: x[:0], "is empty, of shape .0, 7, 16."),
    ],
)
def test_embeddings_that_are_none_are_named(
    sdxl: ArtifactRef, tmp_path: Path, name: str, change: object, told: str
) -> None:
    tensors = PIPELINES["sdxl"].conditions(range(3))
    tensors[name] = change(tensors[name])  # type: ignore[operator]
    save_file(tensors, tmp_path / "prompts.safetensors")
    with pytest.raises(ValueError, match=told):
        store_conditions(str(tmp_path / "prompts.safetensors"), sdxl)


def test_a_file_without_tensors_and_whole_ones(sdxl: ArtifactRef, tmp_path: Path) -> None:
    save_file({}, tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="holds no tensors"):
        store_conditions(str(tmp_path / "none.safetensors"), sdxl)
    save_file(PIPELINES["sdxl"].conditions(range(3)), tmp_path / "prompts.safetensors")
    assert store_conditions(str(tmp_path / "prompts.safetensors"), sdxl).kind == "conditions"
