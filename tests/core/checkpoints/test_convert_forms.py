"""Forms of other people's weights: each predicts, bit for bit, what its original predicts."""

from __future__ import annotations

import json
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from torch import Tensor

from ddim_core.checkpoints.checkpoint import Checkpoint, load_checkpoint
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.diffusion.specs import Weights
from ddim_core.safe_files.safe_load import read_weights
from tests.core.checkpoints.test_convert import FLOAT32
from tests.core.foreign_files import (
    answer,
    official_like,
    official_names,
    pixel_pipeline,
    small_unet,
)

NAME = "diffusion_pytorch_model.safetensors"
Opener = Callable[..., Checkpoint]


@pytest.fixture
def opened(tmp_path: Path) -> Opener:
    def open_it(path: Path, weights: Weights = "ema") -> Checkpoint:
        out = tmp_path / f"adopted-{weights}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        adopt(source_files(path), out, weights)
        return load_checkpoint(out)

    return open_it


def assert_same_bits(got: Checkpoint, unet: UNet2DModel) -> None:
    """Of settings and weights; what a network answers is compared in the tests beside these."""
    read, weights = got.model.unet, unet.state_dict()
    told = json.loads(read.to_json_string()) | {"_name_or_path": None}
    assert told == json.loads(unet.to_json_string()) | {"_name_or_path": None}
    found = read.state_dict()
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def under(prefix: str, unet: UNet2DModel) -> dict[str, Tensor]:
    return {prefix + name: weight for name, weight in unet.state_dict().items()}


def written(folder: Path, content: Any, name: str = "last.ckpt", config: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:
        torch.save(content, path)
    if config:
        (folder / "config.json").write_text(small_unet().to_json_string())
    return path


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("module.", ".safetensors"), ("_orig_mod.", ".pt"), ("module._orig_mod.", ".pth"),
        ("_orig_mod.module.", ".bin"), ("unet.", ".ckpt"), ("model.", ".ckpt"), ("net.", ".ckpt"),
        ("model.diffusion_model.", ".ckpt"), ("model.unet._orig_mod.", ".safetensors"),
    ],
)  # fmt: skip
def test_names_behind_wrappers_and_attributes_are_read(
    prefix: str, suffix: str, tmp_path: Path, opened: Opener
) -> None:
    state: Any = under(prefix, small_unet())
    if suffix == ".ckpt":  # of Lightning
        state = {"state_dict": state, "global_step": 700, "pytorch-lightning_version": "2.5"}
    got = opened(written(tmp_path / "run", state, f"last{suffix}"))
    assert_same_bits(got, small_unet())
    assert got.training_step == (700 if suffix == ".ckpt" else None)
    assert got.weights is None


@pytest.mark.parametrize("prefix", ["module._orig_mod.", "unet._orig_mod.", "model.unet."])
def test_wrapped_names_in_a_network_folder_are_read(
    prefix: str, tmp_path: Path, opened: Opener
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    safetensors.torch.save_file(under(prefix, small_unet()), folder / "unet" / NAME)
    assert_same_bits(opened(folder), small_unet())


@pytest.mark.parametrize("weights", ["ema", "raw"])
@pytest.mark.parametrize(
    "make",
    [
        lambda raw, ema: {"state_dict": under("unet.", raw) | under("ema_unet.", ema)},
        lambda raw, ema: {"state_dict": under("model.", raw) | under("model_ema.module.", ema)},
        lambda raw, ema: under("net.", raw) | under("ema.net.", ema),
        lambda raw, ema: {"model": under("module.", raw), "ema": under("module._orig_mod.", ema)},
        lambda raw, ema: {"my_net": under("", raw), "my_net_ema": under("", ema), "lr": 0.1},
        lambda raw, ema: {"unet": under("", raw), "ema": EMAModel(ema.parameters()).state_dict()},
        lambda raw, ema: {
            "model": under("", raw),
            "ema": {"decay": 0.999, "num_updates": 5, "shadow_params": list(ema.parameters())},
        },
        lambda raw, ema: {"state_dict": under("", raw), "shadow_params": list(ema.parameters())},
    ],
)
def test_of_a_network_and_its_average_in_one_file_the_asked_one_is_taken(
    make: Callable[[Any, Any], Any], weights: Weights, tmp_path: Path, opened: Opener
) -> None:
    path = written(tmp_path / "run", make(small_unet(1), small_unet(2)))
    got = opened(path, weights)
    assert_same_bits(got, small_unet(1 if weights == "raw" else 2))
    assert got.weights == weights


@pytest.mark.parametrize("make", [list, lambda p: {"shadow_params": list(p), "decay": 0.99}])
def test_a_list_of_averaged_weights_takes_its_names_from_the_configuration(
    make: Callable[[Any], Any], tmp_path: Path, opened: Opener
) -> None:
    path = written(tmp_path / "run", make(small_unet(2).parameters()), "ema.pt")
    assert_same_bits(opened(path), small_unet(2))
    (tmp_path / "run" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"as a list, without names; the config.json"):
        opened(path)
    other = written(tmp_path / "other", make(small_unet(layers_per_block=2).parameters()), "e.pt")
    with pytest.raises(ValueError, match=r"a list of \d+ averaged weights; its network has"):
        opened(other)
    with pytest.raises(ValueError, match=r"averaged weight \d+ in e.pt has shape"):
        opened(written(tmp_path / "other", make([*small_unet().parameters()][::-1]), "e.pt"))


def test_an_average_as_a_list_needs_no_configuration_beside_its_official_network(
    tmp_path: Path, opened: Opener
) -> None:
    raw, ema = (official_names(official_like(seed)) for seed in (1, 2))
    content = {"model": raw, "ema": {"shadow_params": list(ema.values())}}
    got = opened(written(tmp_path / "run", content, "model-5.ckpt", config=False))
    assert (answer(got.model) - answer(official_like(2))).abs().max() < FLOAT32


def test_torchs_averaged_model_is_read(tmp_path: Path, opened: Opener) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(small_unet())
    path = written(tmp_path / "run", OrderedDict(averaged.state_dict()))
    assert_same_bits(opened(path), small_unet())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": under("a.", small_unet()) | under("b.", small_unet())}, "2 networks"),
        (under("", small_unet()) | under("unet.", small_unet()), "2 networks, under"),
        ({"model": under("", small_unet()), "net": under("", small_unet())}, "2 networks, under"),
        ({"one": under("", small_unet()), "two": under("", small_unet())}, "2 networks, under"),
        ({"ema": under("", small_unet()), "model_ema": under("", small_unet())}, "2 networks"),
        (under("unet.", small_unet()) | {"vae.decoder.w": torch.ones(2, 2)}, "'vae.decoder.w'"),
    ],
)  # fmt: skip
def test_two_networks_in_one_file_are_refused(
    content: Any, message: str, tmp_path: Path, opened: Opener
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(written(tmp_path / "run", content))


def test_numbers_of_numpy_beside_the_weights_are_read_as_numbers(
    tmp_path: Path, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [
        kind(7) for kind in (np.float64, np.float32, np.float16, np.int64, np.uint8, np.bool_)
    ]
    for old in (False, True):
        content = {"state_dict": under("", small_unet()), "global_step": np.int64(700),
                   "losses": numbers}  # fmt: skip
        path = written(tmp_path / "run", content)
        if old:  # NumPy 1.x named its module otherwise
            torch.save(content, path, _use_new_zipfile_serialization=False)
            data = path.read_bytes()
            assert b"numpy._core.multiarray" in data
            path.write_bytes(data.replace(b"cnumpy._core.", b"cnumpy.core."))
        assert read_weights(path)["losses"] == [7.0, 7.0, 7.0, 7, 7, True]
        got = opened(path)
        assert_same_bits(got, small_unet())
        assert got.training_step == 700
    torch.save({"state_dict": {}, "x": np.array([object()])[0:1]}, path)
    with pytest.raises(ValueError, match="more than weights"):
        read_weights(path)


def sharded(folder: Path, unet: UNet2DModel, **how: Any) -> None:
    unet.save_pretrained(folder, max_shard_size="300KB", **how)
    assert len(list(folder.glob("*-of-*"))) > 2


@pytest.mark.parametrize("bare", [True, False])
def test_shards_count_before_a_single_file_beside_them_as_in_diffusers(
    bare: bool, tmp_path: Path, opened: Opener
) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet(1))
    single = (folder / "unet" / NAME).read_bytes()
    sharded(folder / "unet", small_unet(2))
    (folder / "unet" / NAME).write_bytes(single)
    assert_same_bits(opened(folder / "unet" if bare else folder), small_unet(2))
    peer = UNet2DModel.from_pretrained(folder / "unet").eval()
    assert torch.equal(answer(peer), answer(small_unet(2)))
    next((folder / "unet").glob("*-00002-of-*")).unlink()
    with pytest.raises(ValueError, match="which is no file beside it"):
        opened(folder / "unet" if bare else folder)


@pytest.mark.parametrize(
    ("variant", "parts", "safe"),
    [("bf16", "one file", True), ("bf16", "shards", True), ("fp16", "shards", True),
     ("fp16", "both", True), ("fp32", "one file", False), ("fp32", "shards", False)],
)  # fmt: skip
def test_a_variant_alone_is_read_whole_or_in_shards(
    variant: str, parts: str, safe: bool, tmp_path: Path, opened: Opener
) -> None:
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[variant]
    unet = small_unet().to(dtype)
    folder = tmp_path / "bare"
    how: Any = {"variant": variant, "safe_serialization": safe}
    if parts != "one file":
        sharded(folder, unet, **how)
    if parts == "both":
        small_unet(3).to(dtype).save_pretrained(tmp_path / "other", **how)
        shutil.copytree(tmp_path / "other", folder, dirs_exist_ok=True)
    if parts == "one file":
        unet.save_pretrained(folder, **how)
    assert_same_bits(opened(folder), unet.float())


def test_several_variants_and_shards_without_an_index_are_refused(
    tmp_path: Path, opened: Opener
) -> None:
    for variant in ("bf16", "fp8"):
        small_unet().save_pretrained(tmp_path / "two", variant=variant)
    with pytest.raises(ValueError, match=r"2 variants \('bf16', 'fp8'\)"):
        opened(tmp_path / "two")
    sharded(tmp_path / "lone", small_unet())
    next((tmp_path / "lone").glob("*.index.json")).unlink()
    with pytest.raises(ValueError, match=r"a part of a network's weights, and no index"):
        opened(tmp_path / "lone")


def accelerated(folder: Path, safe: bool) -> None:
    """The folder of `Accelerator.save_state`, without hooks of its user's."""
    name = "model.safetensors" if safe else "pytorch_model.bin"
    written(folder, small_unet(1).state_dict(), name)
    for other in ("optimizer.bin", "scheduler.bin", "sampler.bin", "scaler.pt"):
        torch.save({"state": {}, "step": 3}, folder / other)
    (folder / "random_states_0.pkl").write_bytes(b"not read")


@pytest.mark.parametrize("safe", [True, False])
def test_the_flat_folder_of_accelerate_is_read(safe: bool, tmp_path: Path, opened: Opener) -> None:
    accelerated(tmp_path / "checkpoint_3", safe)
    assert_same_bits(opened(tmp_path / "checkpoint_3"), small_unet(1))
    second = "model_1.safetensors" if safe else "pytorch_model_1.bin"
    path = written(tmp_path / "checkpoint_3", small_unet(2).state_dict(), second)
    with pytest.raises(ValueError, match=r"holds 2 weights files .*; name one"):
        opened(tmp_path / "checkpoint_3")
    assert_same_bits(opened(path), small_unet(2))


@pytest.mark.parametrize("name", ["ema.safetensors", "model_ema.pt"])
def test_an_average_beside_the_flat_folders_network_is_its_average(
    name: str, tmp_path: Path, opened: Opener
) -> None:
    folder = tmp_path / "run"
    accelerated(folder, safe=True)
    content = small_unet(2).state_dict()
    written(folder, content if "safe" in name else {"shadow_params": [*content.values()]}, name)
    for weights, seed in (("ema", 2), ("raw", 1)):
        got = opened(folder, weights)
        assert_same_bits(got, small_unet(seed))
        assert got.weights == weights


def test_the_flat_folder_in_shards_is_read(tmp_path: Path, opened: Opener) -> None:
    folder = tmp_path / "run"
    accelerated(folder, safe=True)
    state, places = small_unet(2).state_dict(), {}
    for part, names in enumerate((sorted(state)[::2], sorted(state)[1::2])):
        name = f"model-{part + 1:05d}-of-00002.safetensors"
        safetensors.torch.save_file({key: state[key] for key in names}, folder / name)
        places |= dict.fromkeys(names, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_bits(opened(folder), small_unet(2))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("model.fp16.safetensors", "model.bf16.safetensors"),
        ("model.fp16.safetensors", "pytorch_model.bf16.bin"),
        ("model.bf16.safetensors", "pytorch_model.fp16.bin"),
        ("diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bf16.safetensors"),
        ("diffusion_pytorch_model.fp16.bin", "diffusion_pytorch_model.bf16.safetensors"),
    ],
)
def test_two_variants_are_ambiguous_whichever_they_are(
    one: str, other: str, tmp_path: Path
) -> None:
    part = "text_encoder" if "diffusion" not in one else "unet"
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    (folder / part).mkdir(exist_ok=True)
    (folder / part / "config.json").touch()
    for name in (NAME, one, other):
        (folder / part / name).write_bytes(b"x")
    plain = "model.safetensors" if part == "text_encoder" else NAME
    (folder / part / plain).write_bytes(b"x")
    assert source_files(folder)[f"{part}/{plain}"].name == plain  # as diffusers, without a variant
    (folder / part / plain).unlink()
    with pytest.raises(ValueError, match=rf"{part} holds weights in 2 variants .*keep one"):
        source_files(folder)


@pytest.mark.parametrize("step", [-5, True, 10**30])
@pytest.mark.parametrize("form", ["key", "list", "config", "record"])
def test_a_number_of_steps_that_is_none_is_refused(
    step: Any, form: str, tmp_path: Path, opened: Opener
) -> None:
    path = pixel_pipeline(tmp_path / "pipeline", small_unet())
    if form == "key":
        path = tmp_path / "x.ckpt"
        torch.save({"state_dict": small_unet().state_dict(), "global_step": step}, path)
    elif form == "list":
        path, state = tmp_path / "x.ckpt", official_names(official_like())
        torch.save([state, {}, 0, step, state], path)
    else:
        name = "unet/config.json" if form == "config" else "ddim_flows.json"
        told = json.loads((path / name).read_text()) if form == "config" else {}
        key = "optimization_step" if form == "config" else "training_step"
        (path / name).write_text(json.dumps(told | {key: step}))
    with pytest.raises(ValueError, match=r"step.* is .*; it must be a whole number in 0\.\.|bits"):
        opened(path)
