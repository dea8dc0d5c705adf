"""Files that lie, are damaged or want to run code: each is refused in words, and nothing runs."""

from __future__ import annotations

import json
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

from ddim_core.checkpoints.checkpoint import load_checkpoint
from ddim_core.checkpoints.convert import adopt, source_files
from ddim_core.safe_files.safe_load import read_weights, require_tensors
from tests.core.foreign_files import (
    SETTINGS,
    course_file,
    course_names,
    official_like,
    official_names,
    pickled_modules,
    pixel_pipeline,
    small_unet,
)

SECONDS = 10.0  # that one damaged file may take; about 0.1 on a quiet machine
N_DAMAGED = 8


class Trap:
    """A pickle of it writes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


def refused(path: Path, out: Path) -> str:
    out.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"\S") as caught:
        adopt(source_files(path), out)
    return str(caught.value)


def trapped_states(path: Path, trap: Trap) -> None:
    torch.save([official_names(official_like()), trap, 0, 1], path)


def trapped_old_format(path: Path, trap: Trap) -> None:
    torch.save({"a": trap}, path, _use_new_zipfile_serialization=False)


def trapped_hparams(path: Path, trap: Trap) -> None:
    course_file(path, {"network.head.weight": torch.ones(1)}, {"network": trap})


def trapped_beside_modules(path: Path, trap: Trap) -> None:
    course_file(path, {"a": torch.ones(1)}, pickled_modules(16) | {"more": trap})


def trapped_plain_pickle(path: Path, trap: Trap) -> None:
    path.write_bytes(pickle.dumps(trap))


@pytest.mark.parametrize(
    "make",
    [
        trapped_states, trapped_old_format, trapped_hparams, trapped_beside_modules,
        trapped_plain_pickle,
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["model.ckpt", "model.safetensors", "model.bin"])
def test_a_pickle_that_would_write_a_file_is_refused_and_writes_none(
    make: Callable[[Path, Trap], None], name: str, tmp_path: Path
) -> None:
    trap = Trap(tmp_path / "sprung")
    make(tmp_path / name, trap)
    assert "convert it once" in refused(tmp_path / name, tmp_path / "out")
    assert not trap.path.exists()
    with (tmp_path / name).open("rb") as file:  # the trap does work, where it is let
        found = pickle.load(file) if make is trapped_plain_pickle else None
    assert found is None or trap.path.exists()


def test_pickled_weights_in_a_pipeline_are_refused_alike(tmp_path: Path) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    trap = Trap(tmp_path / "sprung")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"conv_in.weight": trap}, weights.with_suffix(".bin"))
    weights.unlink()
    assert "more than weights" in refused(folder, tmp_path / "out")
    assert not trap.path.exists()


def test_settings_in_yaml_make_no_objects(tmp_path: Path) -> None:
    torch.save([official_names(official_like()), {}, 0, 1], tmp_path / "ckpt.pth")
    sprung = tmp_path / "sprung"
    evil = f"data: !!python/object/apply:os.system ['touch {sprung}']\n"
    (tmp_path / "config.yml").write_text(evil)
    assert "is not plain YAML" in refused(tmp_path / "ckpt.pth", tmp_path / "out")
    assert not sprung.exists()


def test_archives_are_not_unpacked(tmp_path: Path) -> None:
    for name, member in (("plain.ckpt", "../escaped"), ("packed.ckpt", "a/data.pkl")):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(member, bytes(2**20))
    assert "unpack it first" in refused(tmp_path / "plain.ckpt", tmp_path / "one")
    assert "is packed" in refused(tmp_path / "packed.ckpt", tmp_path / "two")
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused_by_name(value: float, tmp_path: Path) -> None:
    state = official_names(official_like())
    state["mid.block_1.conv1.weight"][0, 0, 0, 0] = value
    torch.save(state, tmp_path / "model-1.ckpt")
    message = refused(tmp_path / "model-1.ckpt", tmp_path / "out")
    assert "mid.block_1.conv1.weight" in message
    assert "not finite" in message


def test_half_precision_becomes_float32() -> None:
    got = require_tensors({"a": torch.ones(2, dtype=torch.float16)}, "it")
    assert got["a"].dtype == torch.float32


def official_file(folder: Path) -> Path:
    names = official_names(official_like())
    torch.save([names, {}, 0, 1, names], folder / "ckpt.pth")
    (folder / "config.yml").write_text(yaml.safe_dump(SETTINGS))
    return folder / "ckpt.pth"


def old_format_file(folder: Path) -> Path:
    names = official_names(official_like())
    torch.save(names, folder / "model-2.ckpt", _use_new_zipfile_serialization=False)
    return folder / "model-2.ckpt"


def safetensors_file(folder: Path) -> Path:
    unet = small_unet()
    pixel_pipeline(folder / "pipeline", unet)
    (folder / "pipeline" / "unet" / "config.json").rename(folder / "config.json")
    safetensors.torch.save_file(unet.state_dict(), folder / "model.safetensors")
    return folder / "model.safetensors"


FORMS = [official_file, old_format_file, safetensors_file]


@pytest.mark.parametrize("make", FORMS)
def test_a_truncated_file_ends_in_words(make: Callable[[Path], Path], tmp_path: Path) -> None:
    path = make(tmp_path)
    whole = path.read_bytes()
    lengths = np.random.default_rng(0).integers(0, len(whole), N_DAMAGED)
    for i, length in enumerate([0, 1, 9, *lengths.tolist()]):
        path.write_bytes(whole[:length])
        began = time.monotonic()
        assert len(refused(path, tmp_path / f"out-{i}")) > 20
        assert time.monotonic() - began < SECONDS


@pytest.mark.parametrize("make", FORMS)
def test_flipped_bits_end_in_words_or_in_other_weights_of_the_same_network(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    """A bit of a weight cannot be told from another weight, but for the zip of torch.save, whose
    checksums tell; all else must be refused, or change nothing."""
    path = make(tmp_path)
    whole = path.read_bytes()
    draw = np.random.default_rng(1)
    header = draw.integers(0, min(len(whole), 4000), N_DAMAGED)
    anywhere = draw.integers(0, len(whole), N_DAMAGED)
    for i, place in enumerate([*header.tolist(), *anywhere.tolist()]):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (i % 8)
        path.write_bytes(damaged)
        began = time.monotonic()
        out = tmp_path / f"out-{i}"
        out.mkdir()
        try:
            adopt(source_files(path), out)
        except ValueError as error:
            assert len(str(error)) > 20  # noqa: PT017 (either way is right, nothing else is)
        else:
            got = load_checkpoint(out)
            assert got.model.unet.config["block_out_channels"] in ([32, 64], (32, 64))
            assert all(bool(w.isfinite().all()) for w in got.model.unet.parameters())
        assert time.monotonic() - began < SECONDS


def test_every_flipped_bit_of_a_zipped_file_is_found_by_its_checksum(tmp_path: Path) -> None:
    path = official_file(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 4
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="checksum"):
        read_weights(path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n" + bytes(99), b"{}", b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors", "a.pt", "a.png"])
def test_a_file_of_another_kind_is_told_whatever_its_name(
    content: bytes, name: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    assert "a." in refused(tmp_path / name, tmp_path / "out")


def test_a_renamed_file_is_read_by_what_it_is(tmp_path: Path) -> None:
    path = safetensors_file(tmp_path).rename(tmp_path / "model.ckpt")
    (tmp_path / "out").mkdir()
    adopt(source_files(path), tmp_path / "out")
    path = course_file(tmp_path / "a.safetensors", {"x": torch.ones(1)}, {})
    assert list(read_weights(path)["state_dict"]) == ["x", "var_scheduler.betas"]


def test_damaged_settings_of_a_pipeline_end_in_words(tmp_path: Path) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    draw = np.random.default_rng(2)
    names = ["unet/config.json", "scheduler/scheduler_config.json", "model_index.json"]
    for i in range(24):
        path = folder / names[i % 3]
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[draw.integers(len(damaged))] ^= 1 << (i % 7)
        path.write_bytes(damaged)
        out = tmp_path / f"out-{i}"
        out.mkdir()
        try:
            adopt(source_files(folder), out)
        except ValueError as error:
            assert len(str(error)) > 20  # noqa: PT017
        path.write_bytes(whole)


def test_absurd_schedules_are_refused(tmp_path: Path) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_train_timesteps": 10**12}))
    assert "num_train_timesteps is 1000000000000" in refused(folder, tmp_path / "out")


def test_the_courses_file_keeps_no_code_of_its_pickle(tmp_path: Path) -> None:
    state = course_names(small_unet())
    content = read_weights(course_file(tmp_path / "a.ckpt", state, pickled_modules(16)))
    network = content["hparams"]["network"]
    assert type(network).__name__ == "Inert"
    assert network.image_resolution == 16
    assert not callable(network)


def test_a_number_that_stands_for_many_is_no_weight(tmp_path: Path) -> None:
    torch.save({"conv_in.weight": torch.ones(1).expand(10**5, 10**5)}, tmp_path / "a.ckpt")
    assert "claims 40000000000 bytes" in refused(tmp_path / "a.ckpt", tmp_path / "out")


@pytest.mark.parametrize(
    "settings",
    [
        {"data": 3, "diffusion": "x"},
        {"data": {"image_size": 16}, "model": {"ch": 32}, "diffusion": {}},
        {**SETTINGS, "diffusion": {**SETTINGS["diffusion"], "num_diffusion_timesteps": 10**11}},
    ],
)
def test_settings_of_the_wrong_shape_end_in_words(settings: Any, tmp_path: Path) -> None:
    path = official_file(tmp_path)
    (tmp_path / "config.yml").write_text(yaml.safe_dump(settings))
    assert len(refused(path, tmp_path / "out")) > 20


def test_weights_of_the_wrong_rank_end_in_words(tmp_path: Path) -> None:
    state = official_names(official_like()) | {"conv_in.weight": torch.ones(3)}
    torch.save(state, tmp_path / "model-1.ckpt")
    assert "IndexError" in refused(tmp_path / "model-1.ckpt", tmp_path / "out")


def test_pickles_beside_the_weights_are_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-7"
    small_unet().save_pretrained(folder / "unet")
    trap = Trap(tmp_path / "sprung")
    for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl", "unet/more.bin"):
        torch.save(trap, folder / name)
    (tmp_path / "out").mkdir()
    adopt(source_files(folder), tmp_path / "out")
    assert not trap.path.exists()
