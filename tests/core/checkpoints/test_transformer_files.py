"""Files of DiT, SiT, REPA and LightningDiT as people have them: what is said, what is missing."""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ddim_core.checkpoints.checkpoint import scheduler_config
from ddim_core.checkpoints.convert import source_digest
from ddim_core.checkpoints.formats.transformers import transformer
from tests.core.checkpoints.test_transformers import (
    gold,
    opened,
    saved,
    tiny_decoder,
    weights_of,
)

SIT = {"model": "SiT-XL/2", "num_heads": 4}
State = dict[str, torch.Tensor]


def written(folder: Path, content: Any, beside: dict[str, Any] | None = None) -> Path:
    tiny_decoder(folder / "vae")
    torch.save(content, folder / "mine.pt")
    if beside is not None:
        (folder / "config.json").write_text(json.dumps(beside))
    return folder / "mine.pt"


@pytest.mark.parametrize(
    ("beside", "said"),
    [
        (None, "of DiT, SiT, REPA or LightningDiT alike, and nothing beside them says which"),
        ({"model": "U-ViT-H/2"}, "its model is 'U-ViT-H/2'"),
        ({"model": "SiT-XL/2"}, "the width of the network is 32 and nothing says its number of"),
        (SIT | {"num_heads": 5}, "and 5 are said to be its number of heads"),
        (SIT | {"path_type": "curl"}, "path_type is 'curl'; it must be one of linear, gvp,"),
        (SIT | {"prediction": "score"}, "prediction is 'score'"),
        (SIT | {"num_classes": 7}, "num_classes is 7 beside the weights, which have 11 labels"),
        (SIT | {"timestep_shift": -1}, "timestep_shift is -1"),
    ],
)
def test_what_weights_do_not_show_must_be_said_and_make_sense(
    beside: dict[str, Any] | None, said: str, tmp_path: Path
) -> None:
    path = written(tmp_path, weights_of("sit"), beside)
    with pytest.raises(ValueError, match=r".") as refused:
        opened(path, tmp_path / "out")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def without(name: str) -> Callable[[State], State]:
    return lambda state: {k: w for k, w in state.items() if not k.startswith(name)}


def reshaped(name: str, *shape: int) -> Callable[[State], State]:
    return lambda state: {**state, name: torch.zeros(shape)}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            without("blocks.1.attn.proj.bias"),
            r"lacks 1 weights .*looks like SiT with hidden_size 32, num_hidden_layers 2, ",
        ),
        (without("blocks."), "the weights of its first block are of no DiT"),
        (reshaped("pos_embed", 1, 15, 32), r"places of shape \[1, 15, 32\]"),
        (reshaped("x_embedder.proj.weight", 32, 4), r"patches of shape \[32, 4\]"),
        (reshaped("extra.weight", 3), "knows nothing of, the first of them extra.weight"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(
    changed: Callable[[State], State], said: str, tmp_path: Path
) -> None:
    path = written(tmp_path, changed(weights_of("sit")), SIT)
    with pytest.raises(ValueError, match=said):
        opened(path, tmp_path / "out")


def test_a_network_of_pixels_needs_no_autoencoder_and_no_statistics(tmp_path: Path) -> None:
    state = weights_of("lightning")
    state["x_embedder.proj.weight"] = state["x_embedder.proj.weight"][:, :3].contiguous()
    last = ("final_layer.linear.weight", "final_layer.linear.bias")
    state |= {name: state[name][:12].contiguous() for name in last}
    torch.save(state, tmp_path / "mine.pt")
    got = opened(tmp_path / "mine.pt", tmp_path / "out")
    assert (got.latent, got.channels, got.resolution) == (None, 3, 8)


def test_a_released_files_name_says_what_its_weights_do_not(tmp_path: Path) -> None:
    written(tmp_path, {}, {"num_heads": 4}).unlink()
    path, digests = tmp_path / "mine.pt", set()
    torch.save(weights_of("sit"), path)
    for name, type_ in (("DiT-XL-2-256x256", "epsilon"), ("SiT-XL-2-512x512", "flow_prediction")):
        digests.add(source_digest({"weights": path}))
        path = path.rename(tmp_path / f"{name}.pt")
        assert opened(path, tmp_path / f"{name}-out").prediction_type == type_
    assert len(digests | {source_digest({"weights": path})}) == 3  # of the same bytes


def test_repas_networks_without_their_projectors_are_told_by_name(tmp_path: Path) -> None:
    state = {n: w for n, w in weights_of("repa").items() if not n.startswith("projectors.")}
    got = opened(written(tmp_path, state, {"model": "REPA-XL/2"}), tmp_path / "out")
    assert got.model.unet.config["to_data"] is False


def test_a_trainers_prefix_and_a_plain_file_hold_the_same_network(tmp_path: Path) -> None:
    state, said = weights_of("sit"), []
    forms: list[Any] = [state, {"model": {f"module.{n}": w for n, w in state.items()}}]
    forms += [{"state_dict": {f"net.{n}": w for n, w in state.items()}, "global_step": 7}]
    for i, form in enumerate(forms):
        (folder := tmp_path / str(i)).mkdir()
        got = opened(written(folder, form, SIT), folder / "out")
        said.append(got.model(gold("x"), 1000 * gold("t"), gold("y")))
        assert any("does not say its path" in sentence for sentence in got.assumed)
    assert all(torch.equal(said[0], other) for other in said)


def test_an_average_is_taken_and_the_others_where_they_are_asked_for(tmp_path: Path) -> None:
    tiny_decoder(tmp_path / "of" / "vae")
    path = saved("repa", tmp_path / "of")
    got = opened(path, tmp_path / "out")
    assert (got.weights, got.training_step, got.null_label) == ("ema", 400000, 1000)
    assert torch.equal(got.model.unet.pos_embed, weights_of("repa")["pos_embed"])
    names = got.model.unet.state_dict()
    assert not any(name.startswith("projectors.") for name in names)


def test_an_autoencoder_is_asked_for_by_name_and_found_wherever_it_is_said_to_be(
    tmp_path: Path,
) -> None:
    path = saved("sit", tmp_path / "of")
    with pytest.raises(ValueError, match=r"draws 4 channels of latents .* --configuration"):
        opened(path, tmp_path / "none")
    tiny_decoder(tmp_path / "pipeline" / "vae")
    for i, place in enumerate((tmp_path / "pipeline", tmp_path / "pipeline" / "vae")):
        got = opened(path, tmp_path / f"out{i}", place)
        assert got.noise_shape == (4, 8, 8)
        assert got.images(gold("x")).shape == (2, 3, 16, 16)
    (tmp_path / "empty").mkdir()
    for place, said in (("nowhere", "there is no folder"), ("empty", "has no vae and is no")):
        with pytest.raises(ValueError, match=said):
            opened(path, tmp_path / f"{place}-out", tmp_path / place)
    tiny_decoder(tmp_path / "other", 8)
    with pytest.raises(ValueError, match=r"draws 4 channels, and the autoencoder .* latents of 8"):
        opened(path, tmp_path / "out2", tmp_path / "other")


def test_latents_that_were_normed_are_decoded_as_lightningdit_does(tmp_path: Path) -> None:
    """samples = (samples * latent_std) / latent_multiplier + latent_mean, in its inference.py."""
    mean, std = torch.tensor([0.5, -1.0, 0.0, 2.0]), torch.tensor([1.5, 0.5, 1.0, 3.0])
    path = written(tmp_path, {"ema": weights_of("lightning")}, {"latent_multiplier": 2.0})
    with pytest.raises(ValueError, match=r"there is no latents_stats.pt"):
        opened(path, tmp_path / "none")
    stats = {"mean": mean.view(1, 4, 1, 1), "std": std.view(1, 4, 1, 1)}
    torch.save(stats, tmp_path / "latents_stats.pt")
    got = opened(path, tmp_path / "out")
    assert got.latent is not None
    plain = opened(saved("lightning", tmp_path), tmp_path / "plain")  # latent_norm is off there
    assert plain.latent is not None
    by_hand = (gold("x") * stats["std"] / 2.0 + stats["mean"]) * 2.0  # multiplied there too
    # Folded into a layer of the decoder, in float32: rounding; measured 4e-7.
    torch.testing.assert_close(got.images(gold("x")), plain.images(by_hand), rtol=0, atol=2e-6)
    torch.save(stats | {"std": 0 * stats["std"]}, tmp_path / "latents_stats.pt")
    with pytest.raises(ValueError, match=r"latents_stats.pt holds a mean or std"):
        opened(path, tmp_path / "zero")


CONFIG = {"model": {"model_type": "LightningDiT-B/1"}}
BARE = {"model": "LightningDiT-B/1"}


@pytest.mark.parametrize(
    ("beside", "normed", "multiplier", "said"),
    [
        (CONFIG, False, 0.18215, "latent_norm False, latent_multiplier 0.18215"),
        (CONFIG | {"data": {"latent_norm": True}}, True, 0.18215, "latent_multiplier 0.18215"),
        (CONFIG | {"data": {"latent_norm": False, "latent_multiplier": 2.0}}, False, 2.0, ""),
        (BARE, True, 1.0, "latent_norm True, latent_multiplier 1.0"),
        (BARE | {"latent_norm": False, "latent_multiplier": 2.0}, False, 2.0, ""),
        (BARE | {"latent_norm": False}, False, None, "its autoencoder's own factor is assumed"),
    ],
)
def test_what_a_silent_config_means_is_its_own_codes_default(
    beside: dict[str, Any], normed: bool, multiplier: float | None, said: str
) -> None:
    """LightningDiT's train.py:123: latent_norm False and latent_multiplier 0.18215 if unsaid."""
    network = transformer(weights_of("lightning"), {**beside, "path_type": "linear"}, None)
    assert network.latent_multiplier == (multiplier if normed else None)
    scale = network.latents.scale if network.latents else None
    by_hand = (1.0 / multiplier,) * 4 if multiplier and not normed else None
    assert scale == by_hand
    assert said in " ".join(network.assumed)
    assert bool(said) == any("latents" in sentence for sentence in network.assumed)


def test_latents_that_were_not_normed_are_divided_by_their_multiplier(tmp_path: Path) -> None:
    content = {"ema": weights_of("lightning")}
    told = BARE | {"latent_norm": False}
    by_own = opened(written(tmp_path, content, told), tmp_path / "own")
    by_two = opened(written(tmp_path, content, told | {"latent_multiplier": 2.0}), tmp_path / "two")
    z = gold("x")
    expected = by_own.images(z * 0.18215 / 2.0)  # the small autoencoder's own factor
    torch.testing.assert_close(by_two.images(z), expected, rtol=0, atol=2e-6)


def test_a_shift_of_time_from_noise_is_a_shift_of_the_share_of_noise(tmp_path: Path) -> None:
    tiny_decoder(tmp_path / "of" / "vae")
    opened(saved("lightning", tmp_path / "of"), tmp_path / "out")
    shift = scheduler_config(tmp_path / "out")["shift"]
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    theirs = 1 - 0.3 * t / (1 + (0.3 - 1) * t)
    ours = shift * (1 - t) / (1 + (shift - 1) * (1 - t))
    torch.testing.assert_close(ours, theirs)


def test_an_image_has_the_same_bits_at_every_place_in_a_batch(tmp_path: Path) -> None:
    for name in ("dit", "lightning"):
        tiny_decoder(tmp_path / name / "vae")
        got = opened(saved(name, tmp_path / name), tmp_path / f"{name}-out")
        x = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
        x[3] = x[0]
        t, y = torch.full((5,), 300.0), torch.tensor([2, 4, 5, 2, 9])
        said = got.model.whole(x, t, y)
        assert torch.equal(said[0], said[3])
        assert torch.equal(said[:1], got.model.whole(x[:1], t[:1], y[:1]))


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("exit 1",)


class Called:
    def __reduce__(self) -> Any:
        return argparse.Namespace, ("an argument",)


class OfNoNames:
    def __reduce__(self) -> Any:
        return argparse.Namespace, (), [1, 2]


@pytest.mark.parametrize("args", [Evil(), argparse.Namespace(model=Evil()), Called(), OfNoNames()])
def test_what_a_training_was_called_with_runs_nothing(args: Any, tmp_path: Path) -> None:
    path = written(tmp_path, {"ema": weights_of("sit"), "args": args})
    with pytest.raises(ValueError, match=r"mine.pt (is|holds)"):
        opened(path, tmp_path / "out")


def test_damaged_files_are_refused_in_words(tmp_path: Path) -> None:
    tiny_decoder(tmp_path / "of" / "vae")
    path = saved("sit", tmp_path / "of")
    whole = [path.read_bytes()]
    torch.save(torch.load(path, weights_only=False), path, _use_new_zipfile_serialization=False)
    whole.append(path.read_bytes())
    draw, messages = random.Random(0), []
    for i in range(48):
        data = bytearray(whole[i // 2 % 2])
        if i % 2:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(4):
                data[draw.randrange(6000)] ^= 1 << draw.randrange(8)  # the pickle lies there
        path.write_bytes(data)
        try:
            opened(path, tmp_path / f"out{i}")
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) >= 40
    assert not any("\n" in message or len(message) > 600 for message in messages)


def test_safetensors_of_it_are_read_too(tmp_path: Path) -> None:
    path = written(tmp_path, {}, SIT)
    safetensors.torch.save_file(weights_of("sit"), tmp_path / "mine.safetensors")
    path.unlink()
    assert opened(tmp_path / "mine.safetensors", tmp_path / "out").n_classes == 10
