"""LoRA files of PEFT's and LyCORIS' own layouts over pipelines: what they compute themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel

from ddim_core.pipelines.loras import lay_over
from ddim_core.pipelines.opening import OpenedPipeline, open_pipeline
from ddim_core.safe_files.loras.files import epoch_files, lora_bytes, touches_texts
from ddim_core.safe_files.loras.kinds import OF_HADA
from tests.core.pipelines.tiny import PIPELINES
from tests.peers.lycoris_facts import CASES, CONV, LINEAR, SHAPES, drawn, given

GOLDEN = Path(__file__).parents[2] / "golden" / "lycoris.npz"
TARGETS = ["to_q", "to_v"]
KINDS = {
    "lora": lambda: peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=TARGETS, init_lora_weights=False,
        alpha_pattern={"to_v": 3},
    ),
    "dora": lambda: peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=TARGETS, init_lora_weights=False, use_dora=True,
        use_rslora=True,
    ),
    "loha": lambda: peft.LoHaConfig(r=2, alpha=3, target_modules=TARGETS, init_weights=False),
    "lokr": lambda: peft.LoKrConfig(r=2, alpha=3, target_modules=TARGETS, init_weights=False),
}  # fmt: skip


def opened(name: str, folder: Path) -> OpenedPipeline:
    if not folder.exists():
        PIPELINES[name].make().save_pretrained(folder)
    return open_pipeline(folder, resolution=PIPELINES[name].resolution)


def network_of(pipeline: Any) -> Any:
    return pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer


def read(path: Path) -> bytes:
    return lora_bytes(*epoch_files(path))


def deltas(network: Any, adapter: str) -> dict[str, torch.Tensor]:
    return {
        name: layer.get_delta_weight(adapter)
        for name, layer in network.named_modules()
        if hasattr(layer, "get_delta_weight")
    }


@pytest.mark.parametrize(
    ("family", "kind"),
    [("sdxl", "dora"), ("sdxl", "loha"), ("sd3", "lora"), ("sd3", "lokr"), ("flux", "lora")],
)
def test_files_of_peft_lie_over_a_pipeline_as_over_the_network_they_were_made_on(
    tmp_path: Path, family: str, kind: str
) -> None:
    mine = opened(family, tmp_path / "base")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(network_of(mine.pipeline), KINDS[kind]())
    model.save_pretrained(tmp_path / "epochs" / "checkpoint-7")
    (file,) = epoch_files(tmp_path / "epochs")
    expected = deltas(model.base_model.model, "default")
    assert expected
    for scale in (1.0, 0.5):
        laid = opened(family, tmp_path / "base")
        lay_over(laid, [lora_bytes(file)], [scale])
        found = deltas(network_of(laid.pipeline), "lora_0")
        assert found.keys() == expected.keys()
        for name, delta in expected.items():
            torch.testing.assert_close(found[name], scale * delta, rtol=1e-6, atol=1e-7)


def test_a_file_for_another_base_or_with_missing_numbers_is_refused(tmp_path: Path) -> None:
    mine = opened("sd3", tmp_path / "base")
    model = peft.get_peft_model(mine.pipeline.transformer, KINDS["lora"]())
    model.save_pretrained(tmp_path / "lora")
    (file,) = epoch_files(tmp_path / "lora")
    with pytest.raises(ValueError, match="none of its networks has all of the LoRA's 4 layers"):
        lay_over(opened("sdxl", tmp_path / "other"), [lora_bytes(file)], [1.0])
    tensors = load_file(file.path)
    tensors.pop(next(name for name in tensors if "lora_B" in name))
    save_file(tensors, file.path)
    with pytest.raises(ValueError, match="1 of its tensors do not fit"):
        lay_over(opened("sd3", tmp_path / "base"), [lora_bytes(file)], [1.0])


def lycoris_file(path: Path, case: str, spell: Callable[[str], str]) -> Path:
    """The recorded file of LyCORIS, its layers spelt in some way."""
    with np.load(GOLDEN) as golden:
        tensors = {
            key.split("/", 1)[1]: golden[key] for key in golden if key.startswith(f"{case}/")
        }
    layers = CASES[case][1]
    of_file = {
        f"{spell(layer)}.{key.removeprefix(layer)[1:]}": torch.from_numpy(value)
        for key, value in tensors.items()
        for layer in layers
        if key.startswith(f"{layer}/")
    }
    save_file(of_file, path)
    return path


SPELT = {
    "loha": lambda layer: f"lora_unet_{layer}".replace(".", "_"),
    "lokr": lambda layer: f"lycoris_{layer}".replace(".", "_"),
    "lora": lambda layer: f"lycoris_{layer}".replace(".", "_"),
    "lokr_whole": lambda layer: f"diffusion_model.{layer}",
    "dora": lambda layer: f"unet.{layer}",
    # sd-scripts' names of SDXL, of the original U-Net with one resnet a block.
    "loha_tucker": lambda layer: "lora_unet_" + ORIGINAL[layer],
}
ORIGINAL = {
    LINEAR: "input_blocks_3_1_transformer_blocks_0_attn1_to_q",
    CONV: "input_blocks_3_0_in_layers_2",
}


@pytest.mark.parametrize("case", CASES)
def test_files_of_lycoris_compute_what_lycoris_computes(tmp_path: Path, case: str) -> None:
    """Sums of 128 products in float32, in another order: 1e-6 of outputs of size 1 to 4."""
    mine = opened("sdxl", tmp_path / "base")
    layers = {layer: mine.pipeline.unet.get_submodule(layer) for layer in CASES[case][1]}
    for layer, module in layers.items():
        module.weight.data = torch.from_numpy(drawn(f"weight of {layer}", SHAPES[layer]))
        module.bias = None
    file = lycoris_file(tmp_path / "a.safetensors", case, SPELT.get(case, SPELT["loha"]))
    lay_over(mine, [read(file)], [1.0])
    for layer in layers:
        with torch.no_grad(), np.load(GOLDEN) as golden:
            found = mine.pipeline.unet.get_submodule(layer)(torch.from_numpy(given(layer)))
            torch.testing.assert_close(
                found, torch.from_numpy(golden[f"{case}/{layer}"]), rtol=0, atol=1e-5
            )


def test_half_of_a_loha_counts_half(tmp_path: Path) -> None:
    file = lycoris_file(tmp_path / "a.safetensors", "loha", SPELT["loha"])
    whole, half = (opened("sdxl", tmp_path / "base") for _ in range(2))
    lay_over(whole, [read(file)], [1.0])
    lay_over(half, [read(file)], [0.5])
    expected = deltas(whole.pipeline.unet, "lora_0")
    for name, delta in deltas(half.pipeline.unet, "lora_0").items():
        torch.testing.assert_close(delta, 0.5 * expected[name])


def test_files_of_lycoris_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    def laid(file: Path) -> None:
        content = read(file)
        lay_over(opened("sdxl", tmp_path / "base"), [content], [1.0])

    def refused(case: str, change: Callable[[dict[str, torch.Tensor]], None], message: str) -> None:
        file = lycoris_file(tmp_path / "a.safetensors", case, SPELT["loha"])
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)
        with pytest.raises(ValueError, match=message):
            laid(file)

    q = SPELT["loha"](LINEAR)
    refused("loha", lambda t: t.pop(f"{q}.hada_w2_b"), "without its hada_w2_b; it is not whole")
    refused("lokr", lambda t: t.pop(f"{q}.lokr_w2_a"), "without its lokr_w2_a; it is not whole")
    refused(
        "loha", lambda t: t.update({f"{q}.dora_scale": torch.ones(16, 1)}), "has for LoRA alone"
    )
    refused("dora", lambda t: t.update({f"{q}.hada_w1_a": torch.ones(1)}), "LoHa and LoRA at once")
    refused("dora", lambda t: t.update({f"{q}.dora_scale": torch.ones(1, 16)}), "of its inputs")
    refused(
        "loha", lambda t: t.update({f"{q}.hada_w1_a": torch.ones(8, 2)}), "has 8 outputs, not 16"
    )
    other = {f"lora_unet_nowhere.{part}": torch.ones(2, 2) for part in OF_HADA}
    refused("loha", lambda t: t.update(other), "1 of its 4 layers have no place, .*nowhere")


def test_dora_whose_lengths_diffusers_drops_is_refused_by_name(tmp_path: Path) -> None:
    """Of fused layers in the original names, which diffusers alone takes apart."""
    layer = "lora_unet_double_blocks_0_img_attn_qkv"
    tensors = pair(layer, ("lora_down", "lora_up"), 96, 32)
    save_file(tensors | {f"{layer}.dora_scale": torch.ones(96, 1)}, tmp_path / "dora.safetensors")
    with pytest.raises(ValueError, match=r"is a DoRA, .* drops 1 of its 1 lengths in this layout"):
        lay_over(opened("flux", tmp_path / "base"), [read(tmp_path / "dora.safetensors")], [1.0])


def pair(layer: str, names: tuple[str, str], rows: int, columns: int) -> dict[str, torch.Tensor]:
    values = torch.ones(2, columns), torch.ones(rows, 2)
    return {f"{layer}.{name}.weight": v for name, v in zip(names, values, strict=True)}


def test_a_block_that_a_base_has_not_is_missed_in_fused_layers_too(tmp_path: Path) -> None:
    """One fused layer of kohya's becomes three, so that two blocks pass for six layers of one."""
    kohya = ("lora_down", "lora_up")
    tensors = {}
    for block in range(2):
        tensors |= pair(f"lora_unet_double_blocks_{block}_img_attn_qkv", kohya, 96, 32)
        tensors |= pair(f"lora_unet_double_blocks_{block}_txt_attn_qkv", kohya, 96, 32)
    save_file(tensors, tmp_path / "two.safetensors")
    save_file({k: v for k, v in tensors.items() if "_0_" in k}, tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match=r"unexpected keys.*transformer_blocks\.1\.attn"):
        lay_over(opened("flux", tmp_path / "base"), [read(tmp_path / "two.safetensors")], [1.0])
    fits = opened("flux", tmp_path / "base")
    lay_over(fits, [read(tmp_path / "one.safetensors")], [1.0])
    assert len(deltas(fits.pipeline.transformer, "lora_0")) == 6


def test_a_header_s_pattern_does_not_run_and_the_file_counts_as_without(tmp_path: Path) -> None:
    layer = "transformer_blocks.0.attn.to_q"
    tensors = pair(f"transformer.{layer}", ("lora_A", "lora_B"), 32, 32)
    told = {"r": 2, "lora_alpha": 6, "target_modules": "(([a-z0-9_.])+)+X"}
    header = json.dumps({f"transformer.{name}": value for name, value in told.items()})
    save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": header})
    laid = opened("flux", tmp_path / "base")
    lay_over(laid, [read(tmp_path / "a.safetensors")], [1.0])
    found = deltas(laid.pipeline.transformer, "lora_0")
    assert found.keys() == {layer}
    assert torch.equal(found[layer], torch.full((32, 32), 6.0))  # alpha / r B A


def test_a_lora_of_peft_is_laid_over_its_own_layers_and_no_namesakes(tmp_path: Path) -> None:
    """Of Flux, single_transformer_blocks.N.proj_out ends as the last layer is called."""
    mine = opened("flux", tmp_path / "base")
    config = peft.LoraConfig(r=2, target_modules=r"proj_out", init_lora_weights=False)
    config.exclude_modules = r".*single_transformer_blocks.*"
    model = peft.get_peft_model(mine.pipeline.transformer, config)
    model.save_pretrained(tmp_path / "lora")
    expected = deltas(model.base_model.model, "default")
    assert expected.keys() == {"proj_out"}
    laid = opened("flux", tmp_path / "base")
    lay_over(laid, [read(tmp_path / "lora")], [1.0])
    found = deltas(laid.pipeline.transformer, "lora_0")
    assert found.keys() == {"proj_out"}
    torch.testing.assert_close(found["proj_out"], expected["proj_out"])


def test_a_lora_of_peft_over_a_text_encoder_changes_texts(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "vocab_size": 9}
    encoder = CLIPTextModel(CLIPTextConfig(num_hidden_layers=1, **sizes))
    unet = opened("sdxl", tmp_path / "base").pipeline.unet
    for network, targets, texts in ((encoder, ["q_proj"], True), (unet, TARGETS, False)):
        folder = tmp_path / type(network).__name__
        model = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=targets))
        model.save_pretrained(folder)
        assert touches_texts(read(folder)) == texts
