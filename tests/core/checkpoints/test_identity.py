"""A checkpoint's identity is its weights and settings, however and wherever they were saved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDPMPipeline
from safetensors.torch import load_file, save_file

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.checkpoints.identity import weights_digest
from ddim_core.diffusion.specs import NoiseSpec
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ToyModelSpec

WEIGHTS = Path("unet", "diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "saved"
    save_pipeline(
        folder, toy_unet(ToyModelSpec(widths=(8, 8)), seed=0), NoiseSpec(), training_step=7
    )
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit_json(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path: Path, name: str, change: float) -> None:
    tensors = load_file(path)
    tensors[name] = tensors[name] + change
    save_file(tensors, path)


def test_saved_again_by_diffusers_it_is_the_same(saved: Path, tmp_path: Path) -> None:
    DDPMPipeline.from_pretrained(saved).save_pretrained(tmp_path / "again")
    (tmp_path / "again" / "README.md").write_text("a card")
    assert weights_digest(tmp_path / "again") == weights_digest(saved)


def test_metadata_order_and_formatting_do_not_count(saved: Path, copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    save_file(dict(reversed(tensors.items())), copy / WEIGHTS, metadata={"saved": "on monday"})
    edit_json(copy / "unet" / "config.json", _diffusers_version="0.1", _name_or_path="elsewhere")
    edit_json(copy / "ddim_flows.json", training_step=9)
    (copy / "optimizer.bin").write_bytes(b"momentum")
    (copy / ".lock").touch()
    assert (copy / WEIGHTS).read_bytes() != (saved / WEIGHTS).read_bytes()
    assert weights_digest(copy) == weights_digest(saved)


def test_weights_in_several_files_are_the_same_weights(saved: Path, copy: Path) -> None:
    tensors = load_file(copy / WEIGHTS)
    names = sorted(tensors)
    (copy / WEIGHTS).unlink()
    for i, some in enumerate((names[:5], names[5:])):
        save_file({n: tensors[n] for n in some}, copy / "unet" / f"part-{i}.safetensors")
    (copy / "unet" / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    assert weights_digest(copy) == weights_digest(saved)


def test_one_changed_weight_is_another_checkpoint(saved: Path, copy: Path) -> None:
    edit_weights(copy / WEIGHTS, "conv_in.bias", 1e-6)
    assert weights_digest(copy) != weights_digest(saved)


def test_another_schedule_is_another_checkpoint(saved: Path, copy: Path) -> None:
    edit_json(copy / "scheduler" / "scheduler_config.json", beta_end=0.03)
    assert weights_digest(copy) != weights_digest(saved)


def test_another_number_format_is_another_checkpoint(saved: Path, copy: Path) -> None:
    half = {name: tensor.half() for name, tensor in load_file(copy / WEIGHTS).items()}
    save_file(half, copy / WEIGHTS)
    assert weights_digest(copy) != weights_digest(saved)


def test_pickled_tensors_count_by_content(tmp_path: Path) -> None:
    state = {"state_dict": {"w": torch.arange(3.0), "scalar": torch.tensor(1.0)}, "step": 5}
    torch.save(state, tmp_path / "a.ckpt")
    torch.save(state, tmp_path / "b.ckpt", _use_new_zipfile_serialization=False)
    assert (tmp_path / "a.ckpt").read_bytes() != (tmp_path / "b.ckpt").read_bytes()
    assert weights_digest(tmp_path / "a.ckpt") == weights_digest(tmp_path / "b.ckpt")
    state["state_dict"]["w"] = torch.arange(1.0, 4.0)  # type: ignore[index]
    torch.save(state, tmp_path / "b.ckpt")
    assert weights_digest(tmp_path / "a.ckpt") != weights_digest(tmp_path / "b.ckpt")


def test_a_file_cut_short_is_refused(copy: Path) -> None:
    whole = (copy / WEIGHTS).read_bytes()
    (copy / WEIGHTS).write_bytes(whole[:-100])
    with pytest.raises(ValueError, match="cut short or damaged"):
        weights_digest(copy)


@pytest.mark.parametrize("content", [{}, {"README.md": "nothing here"}])
def test_a_folder_without_weights_is_refused(tmp_path: Path, content: dict[str, str]) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match="holds no weights"):
        weights_digest(tmp_path)
    with pytest.raises(ValueError, match="there is no checkpoint"):
        weights_digest(tmp_path / "elsewhere")
