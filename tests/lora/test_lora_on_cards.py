"""LoRAs as a card trains them, for which a CPU stands in: the same up to rounding."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ddim_core.lora import latents as encoding
from ddim_core.lora import texts as embedding
from ddim_core.lora.latents import encode_latents
from ddim_core.lora.specs import LatentSpec, LoraExecution, LoraSpec, Precision
from ddim_core.lora.texts import embed_prompts
from ddim_core.lora.training.loop import start
from ddim_core.lora.training.run import CHECKPOINT, checkpoints, history_of, run
from tasks.lora.inputs import embed_prompts as embed_task
from tasks.lora.train import train_lora
from tasks.storage import store
from tests.lora.material import STEP, noise_pictures, small_job

CARD = "cpu:0"
ON_CARD = LoraExecution(device=CARD, threads=1)
BASIC = LoraSpec(steps=4, batch_size=2, learning_rate=1e-2)
ROUNDING = 1e-4  # of float32 sums in another order, over four steps of Adam
BUCKETS = LatentSpec(resolution=16, flip=True, crops=2, buckets=True)
PROMPTS = ["", "a photo of a cat", "a photo of sks cat"]


def losses(base: Path, spec: LoraSpec, folder: Path, device: str = CARD) -> list[float]:
    """Of a training in a folder, with class images."""
    job = replace(small_job(base, spec, with_class=True), execution=replace(ON_CARD, device=device))
    list(run(job, folder))
    return [row[0] for row in history_of(folder)]


@pytest.mark.parametrize(
    "option",
    [
        {}, {"dropout": 0.3}, {"accumulation": 2}, {"snr_gamma": 1.0, "noise_offset": 0.1},
        {"targets": ("attention", "convolutions")}, {"dora": True}, {"text_encoder": True},
    ],
)  # fmt: skip
def test_a_card_learns_what_a_cpu_learns(
    base: Path, tmp_path: Path, option: dict[str, Any]
) -> None:
    spec = replace(BASIC, **option)
    here = losses(base, spec, tmp_path / "cpu", "cpu")
    assert losses(base, spec, tmp_path / "card") == pytest.approx(here, rel=ROUNDING)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_card_in_half_precision_stays_near_float32(
    base: Path, tmp_path: Path, precision: Precision
) -> None:
    whole = losses(base, BASIC, tmp_path / "whole", "cpu")
    half = losses(base, replace(BASIC, precision=precision), tmp_path / "half")
    # bfloat16 has 8 bits, and norms have them too: a few relative steps of 2^-8 a value, less in
    # the mean of 256 errors.
    assert half == pytest.approx(whole, rel=2**-7)


def test_a_card_trains_float32_weights_by_copies_in_the_networks_format(base: Path) -> None:
    state = start(replace(BASIC, precision="bf16"), base, ON_CARD)
    assert state.copies is not None
    assert {p.dtype for p in state.network.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in state.parameters.values()} == {torch.float32}
    fresh = start(BASIC, base, replace(ON_CARD, device="cpu"))
    assert fresh.copies is None
    for name, parameter in fresh.parameters.items():
        assert torch.equal(parameter, state.parameters[name]), name


def test_a_training_on_a_card_is_taken_up_with_the_same_bits(base: Path, tmp_path: Path) -> None:
    spec = replace(BASIC, precision="bf16", checkpoint_every=2)
    job = replace(small_job(base, spec), execution=ON_CARD)
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    list(run(job, whole))
    for record in run(job, parted):
        if record.step == 3:
            break
    list(run(job, parted))
    assert [row[:3] for row in history_of(parted)] == [row[:3] for row in history_of(whole)]
    assert list(checkpoints(whole)) == [2, 4]
    for step in (2, 4):
        name = CHECKPOINT.format(step)
        ours, theirs = load_file(whole / name), load_file(parted / name)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], bound: float) -> bool:
    return a.keys() == b.keys() and all(np.abs(a[k] - b[k]).max() <= bound for k in a)


def test_latents_of_a_card_do_not_depend_on_what_stands_beside_an_image(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = noise_pictures(7)
    one_by_one = encode_latents(base, items, BUCKETS, STEP)
    monkeypatch.setattr(encoding, "PIXELS_AT_ONCE", 3 * 16 * 16)
    whole = encode_latents(base, items, BUCKETS, STEP, CARD)
    assert same(whole, one_by_one, 1e-4)
    monkeypatch.setattr(encoding, "CHUNK", 2)
    assert same(encode_latents(base, items, BUCKETS, STEP, CARD), whole, 0.0)
    centre = LatentSpec(resolution=16, buckets=True)
    backwards = encode_latents(base, items[::-1], centre, STEP, CARD)
    forwards = encode_latents(base, items, centre, STEP, CARD)
    assert np.array_equal(backwards["moments/000006"], forwards["moments/000000"])


def test_texts_of_a_card_do_not_depend_on_their_neighbours(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "BATCH_ON_CARD", 2)
    on_card = embed_prompts(base, PROMPTS, CARD)
    assert same(on_card, embed_prompts(base, PROMPTS), 1e-5)
    assert np.array_equal(
        embed_prompts(base, PROMPTS[::-1], CARD)["states"][::-1], on_card["states"]
    )


def test_two_tasks_have_a_card_each(base: Path) -> None:
    cards = LoraExecution(device="cpu:0,cpu:1", threads=1)

    def embedded(prompts: list[str]) -> str:
        return embed_task.fn(prompts, {}, str(base), cards).artifact

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(embedded, [PROMPTS, PROMPTS])
    assert first == second == embed_task.fn(PROMPTS, {}, str(base), cards).artifact


def test_a_lora_is_trained_on_a_card_of_its_own(base: Path) -> None:
    cards = LoraExecution(device="cpu:0,cpu:1", threads=1)
    job = small_job(base, BASIC)
    latents = store.put_arrays(job.latents, "latents")
    embeddings = store.put_arrays(job.embeddings, "embeddings")

    def trained(seed: int) -> str:
        return train_lora.fn(
            replace(BASIC, seed=seed), latents, job.captions, None, [], [1] * 6, [], embeddings,
            {}, str(base), cards,
        ).adapter.artifact  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        at_once = list(pool.map(trained, [1, 2]))
    assert at_once == [trained(1), trained(2)]
    assert at_once[0] != at_once[1]
