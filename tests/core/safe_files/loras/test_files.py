"""LoRA files as trainers leave them: their order, their layouts, and what is refused in words."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ddim_core.safe_files.loras.files import (
    CONFIG,
    METADATA,
    MOST_EPOCHS,
    PEFT,
    epoch_files,
    header_of,
    is_plain,
    lora_bytes,
    ranks_of,
    require_finite,
    touches_texts,
)

UP, DOWN = np.ones((6, 2), np.float32), np.ones((2, 4), np.float32)
KOHYA = {"lora_unet_to_q.lora_down.weight": DOWN, "lora_unet_to_q.lora_up.weight": UP}
OF_PEFT = {"base_model.model.to_q.lora_A.weight": DOWN, "base_model.model.to_q.lora_B.weight": UP}


def written(path: Path, tensors: dict[str, np.ndarray], number: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: (number * value).astype(value.dtype) for name, value in tensors.items()}, path)
    return path


def of_peft(folder: Path, tensors: dict[str, np.ndarray] = OF_PEFT, **settings: object) -> Path:
    written(folder / "adapter_model.safetensors", tensors)
    told = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": "(a+)+$", **settings}
    (folder / CONFIG).write_text(json.dumps(told))
    return folder


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["cat-000002", "cat-000010", "cat"], [2, 10, None]),  # sd-scripts, epochs
        (["cat-step00000500", "cat-step00001000"], [500, 1000]),  # sd-scripts, steps
        (["cat_000000250", "cat_000000500", "cat"], [250, 500, None]),  # ai-toolkit
        (["v15"], [None]),  # no epoch
        (["ink-v2_768"], [None]),  # a resolution
        (["000005", "000010"], [5, 10]),
        (["ink_1-000002", "ink_1-000010", "ink_1"], [2, 10, None]),  # 1 is of the LoRA's name
        (["a-1", "a-2", "a-10", "a", "b-v2_768"], [1, 2, 10, None, None]),  # two trainings
    ],
)
def test_epochs_are_ordered_by_the_number_in_their_names(
    tmp_path: Path, names: list[str], numbers: list[int | None]
) -> None:
    for name in reversed(names):
        written(tmp_path / f"{name}.safetensors", KOHYA)
    (tmp_path / "optimizer.pt").write_bytes(b"state")  # of a trainer: not asked for, not opened
    found = epoch_files(tmp_path)
    assert [file.name for file in found] == names
    assert [file.number for file in found] == numbers


def test_folders_of_steps_are_found_of_diffusers_and_of_peft(tmp_path: Path) -> None:
    for step in (500, 1000):
        written(tmp_path / f"checkpoint-{step}" / "pytorch_lora_weights.safetensors", KOHYA)
    written(tmp_path / "pytorch_lora_weights.safetensors", KOHYA)
    found = epoch_files(tmp_path)
    assert [file.number for file in found] == [500, 1000, None]
    assert [file.name for file in found][:2] == ["checkpoint-500", "checkpoint-1000"]
    assert len({file.series for file in found}) == 1
    of_peft(tmp_path / "peft" / "checkpoint-20")
    (one,) = epoch_files(tmp_path / "peft")
    assert (one.number, one.config is not None) == (20, True)
    assert epoch_files(tmp_path / "peft" / "checkpoint-20")[0].path == one.path


def test_of_peft_s_settings_what_the_numbers_mean_is_taken_and_no_pattern(tmp_path: Path) -> None:
    (file,) = epoch_files(of_peft(tmp_path, alpha_pattern={"to_q": 8}, exclude_modules="(b+)+$"))
    content = lora_bytes(file)
    settings = json.loads(header_of(content)[0]["__metadata__"][PEFT])
    assert settings == {
        "peft_type": "LORA", "r": 2, "lora_alpha": 4, "alpha_pattern": {"to_q": 8},
        "target_modules": ["to_q"],
    }  # fmt: skip
    plain = file.path.read_bytes()
    assert header_of(content)[1] == header_of(plain)[1]  # the numbers, to the byte
    assert ranks_of(content) == {2}
    assert not is_plain(content)  # what plain diffusers does not load is not shipped


def test_other_files_stay_as_they_are_and_say_what_they_touch(tmp_path: Path) -> None:
    (file,) = epoch_files(written(tmp_path / "a.safetensors", KOHYA))
    assert lora_bytes(file) == file.path.read_bytes()
    assert not touches_texts(lora_bytes(file))
    assert is_plain(lora_bytes(file))
    texts = {name.replace("lora_unet", "lora_te"): value for name, value in KOHYA.items()}
    (file,) = epoch_files(written(tmp_path / "b.safetensors", texts))
    assert touches_texts(lora_bytes(file))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"lora_unet_q.hada_w1_a": UP}, "has lora_unet_q without its hada_w1_b; it is not whole"),
        ({"lora_unet_q.oft_blocks": UP}, "holds an OFT or BOFT, which .*; a LoRA, LoHa or LoKr"),
        ({"lora_unet_q.a1.weight": UP}, "holds a GLoRA"),
        ({"lora_unet_q.on_input": UP, "lora_unet_q.weight": UP}, r"holds an \(IA\)\^3"),
        ({"lora_unet_q.diff": UP, "lora_unet_q.diff_b": UP}, "full differences .*LyCORIS' full"),
        (KOHYA | {"lora_unet_to_q.lora_mid.weight": UP}, "Tucker's cores"),
        (
            KOHYA | {"lora_unet_q.diff": UP},
            r"1 tensors beside .*a difference of whole weights",
        ),
        (KOHYA | {"lora_unet_n.w_norm": UP}, r"lora_unet_n.w_norm \(a norm's weights\)"),
        (dict([*KOHYA.items()][:1]), "lora_unet_to_q.lora_down.weight without its lora_up"),
        (dict([*KOHYA.items()][1:]), "lora_unet_to_q.lora_up.weight without its lora_down"),
        (OF_PEFT, r"is a file of PEFT's without its adapter_config\.json"),
        (KOHYA | {"(a+)+X.alpha": UP}, r"has a tensor '\(a\+\)\+X.alpha', which is no layer's"),
        (KOHYA | {"lora_unet_to_q.alpha": -UP[0, :1]}, r"to_q.alpha in a is not above 0"),
        (
            KOHYA | {"lora_unet_to_q.alpha": np.array([-2])},
            r"to_q.alpha in a is not above 0",
        ),
        (KOHYA | {"lora_unet_to_q.alpha": 0 * UP[0, :1]}, r"to_q.alpha in a is not above 0"),
        (KOHYA | {"lora_unet_to_q.alpha": np.inf * UP[0, :1]}, r"to_q.alpha in a is not finite"),
        ({k: np.float16(np.nan) * v.astype(np.float16) for k, v in KOHYA.items()}, "is not finite"),
        ({"conv.weight": UP}, "holds no LoRA: none of its 1 tensors .* such as conv.weight"),
        ({"model.diffusion_model.conv.weight": UP}, "holds no LoRA: none of its 1 tensors"),
    ],
)
def test_what_is_no_lora_that_loads_is_refused_by_name(
    tmp_path: Path, tensors: dict[str, np.ndarray], message: str
) -> None:
    (file,) = epoch_files(written(tmp_path / "a.safetensors", tensors))
    with pytest.raises(ValueError, match=message):
        require_finite(file.name, lora_bytes(file))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type .* is 'IA3'; LORA, LOHA, LOKR are loaded"),
        ({"rank_pattern": {"(a+)+$": 3}}, "rank_pattern .* must map names of layers"),
        ({"r": 20_000_000}, "says rank 20000000 of to_q; its tensor has 2"),
        ({"rank_pattern": {"to_q": 2**40}}, "says rank 1099511627776 of to_q; its tensor has 2"),
        ({"lora_alpha": -1}, "lora_alpha in .* is -1; that cannot be"),
        ({"init_lora_weights": "pissa_niter_4"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "olora"}, "is 'olora': it was trained over a changed base"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is set in"),
        ({"use_qalora": True}, "use_qalora is set in"),
    ],
)
def test_what_peft_would_run_or_not_load_is_refused(
    tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    (file,) = epoch_files(of_peft(tmp_path, **settings))
    with pytest.raises(ValueError, match=message):
        lora_bytes(file)


def test_pickles_damage_and_emptiness_are_refused_in_words(tmp_path: Path) -> None:
    pickle = tmp_path / "pickles" / "lora.pt"
    pickle.parent.mkdir()
    pickle.write_bytes(b"cposix\nsystem\n(S'touch x'\ntR.")
    for place in (pickle, pickle.parent):
        with pytest.raises(ValueError, match=r"pickle.*can run code and is not opened"):
            epoch_files(place)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no LoRA; there must be \.safetensors"):
        epoch_files(tmp_path / "empty")
    with pytest.raises(ValueError, match="there is no file or folder"):
        epoch_files(tmp_path / "nowhere")
    whole = written(tmp_path / "a.safetensors", KOHYA)
    whole.write_bytes(whole.read_bytes()[:-3])
    with pytest.raises(ValueError, match="a is no whole safetensors file"):
        lora_bytes(epoch_files(whole)[0])
    ranks = {name: value[: 6 * ("up" in name)] for name, value in KOHYA.items()}
    of_no_rank = written(tmp_path / "none.safetensors", ranks)
    with pytest.raises(ValueError, match=r"none has a tensor '.*lora_down\.weight' without num"):
        lora_bytes(epoch_files(of_no_rank)[0])
    stray = of_peft(tmp_path / "stray")
    (stray / CONFIG).unlink()
    with pytest.raises(ValueError, match=r"adapter_config\.json is not beside it"):
        epoch_files(stray)


def test_too_many_files_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "many" / "a-000000.safetensors", KOHYA)
    for i in range(1, MOST_EPOCHS + 1):
        whole.with_name(f"a-{i:06d}.safetensors").hardlink_to(whole)
    with pytest.raises(ValueError, match="many holds 201 LoRA files; at most 200 are compared"):
        epoch_files(tmp_path / "many")
    written(tmp_path / "piped" / "a.safetensors", KOHYA)
    os.mkfifo(tmp_path / "piped" / "pipe")
    with pytest.raises(ValueError, match="pipe is a pipe; it must be a regular file"):
        epoch_files(tmp_path / "piped")


def test_a_stranger_cannot_pass_for_a_file_of_peft(tmp_path: Path) -> None:
    """Its settings are made here alone: nobody's pattern runs by way of the header."""
    path = tmp_path / "a.safetensors"
    save_file(KOHYA, path, {PEFT: json.dumps({"peft_type": "LORA", "target_modules": "(a+)+$"})})
    with pytest.raises(ValueError, match="which is set here alone"):
        lora_bytes(epoch_files(path)[0])


def test_epochs_and_steps_of_one_lora_are_ordered_by_their_headers(tmp_path: Path) -> None:
    for name, steps in (("ink-000001", 4), ("ink-step00000006", 6), ("ink-000002", 8), ("ink", 9)):
        save_file(KOHYA, tmp_path / f"{name}.safetensors", {"ss_steps": str(steps)})
    found = epoch_files(tmp_path)
    assert [file.number for file in found] == [4, 6, 8, None]
    assert [file.name for file in found] == ["ink-000001", "ink-step00000006", "ink-000002", "ink"]
    assert len({file.series for file in found}) == 1
    written(tmp_path / "ink-000002.safetensors", KOHYA)
    with pytest.raises(ValueError, match="the header of ink-000002 has no ss_steps"):
        epoch_files(tmp_path)


def test_of_diffusers_header_what_the_numbers_mean_is_kept_and_no_pattern(tmp_path: Path) -> None:
    """Its `lora_adapter_metadata` become PEFT's configuration, whose patterns would run."""
    tensors = {f"unet.a.to_q.{part}.weight": v for part, v in (("lora_A", DOWN), ("lora_B", UP))}
    told = {"unet.r": 2, "unet.lora_alpha": 3, "unet.use_rslora": True, "unet.modules_to_save": "x",
            "unet.target_modules": "(([a-z0-9_.])+)+X"}  # fmt: skip
    (file,) = epoch_files(written_with(tmp_path / "a.safetensors", tensors, told))
    metadata = header_of(lora_bytes(file))[0]["__metadata__"]
    assert metadata.keys() == {"format", METADATA}
    assert json.loads(metadata[METADATA]) == {
        "unet.r": 2, "unet.lora_alpha": 3, "unet.use_rslora": True,
        "unet.target_modules": ["a.to_q"],
    }  # fmt: skip
    for wrong, message in (
        ({"unet.rank_pattern": {"(([a-z0-9_.])+)+X": 2}}, "must map names of layers to numbers"),
        ({"unet.alpha_pattern": {"(a+)+": 2}}, "must map names of layers to numbers"),
        ({"unet.r": 20_000_000}, "says rank 20000000 of a.to_q; its tensor has 2"),
        ({"unet.init_lora_weights": "pissa"}, "was trained over a changed base"),
        ({"unet.use_dora": "yes"}, "use_dora in .* is yes; that cannot be"),
    ):
        (file,) = epoch_files(written_with(tmp_path / "b.safetensors", tensors, told | wrong))
        with pytest.raises(ValueError, match=message):
            lora_bytes(file)


def written_with(path: Path, tensors: dict[str, np.ndarray], told: dict[str, object]) -> Path:
    save_file(tensors, path, {"format": "pt", METADATA: json.dumps(told)})
    return path
