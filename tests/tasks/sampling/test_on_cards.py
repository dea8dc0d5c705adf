"""Cells on a card, for which a CPU stands in: fixed batches, memory that runs out, equal bits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ddim_core.checkpoints.checkpoint import save_pipeline
from ddim_core.common.digest import digest
from ddim_core.diffusion.specs import (
    Execution,
    GridCell,
    NoiseSpec,
    OnCard,
    SamplerSpec,
    SchedulerSpec,
)
from ddim_core.networks.denoisers import toy_unet
from ddim_core.networks.specs import ToyModelSpec
from tasks.cells.table import one_batch, one_device, require_own_device
from tasks.checkpoints import memory
from tasks.checkpoints.pipelines import pipeline_digest, store_pipeline
from tasks.sampling import batches as sized
from tasks.sampling.draw import task_for
from tasks.sampling.shards import Shard
from tasks.storage import store
from tasks.storage.store import ArtifactRef
from tests.core.pipelines.tiny import PIPELINES

NAME_BEFORE_CARDS = "0c0c8cc0fc966a6067c562e08c21f1b2535401319c680d3c8eba80967b3ffd4a"
CARDS = Execution(device="cpu:0,cpu:1")
NOISY = SamplerSpec(steps=4, eta=1.0)
EULER = SchedulerSpec("euler_a", 4)


def on_card(cell: GridCell, batch: int = 16) -> GridCell:
    return replace(cell, card=OnCard("cpu", batch))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> ArtifactRef:
    folder = tmp_path_factory.mktemp("on-cards") / "toy"
    save_pipeline(folder, toy_unet(ToyModelSpec(widths=(16, 16)), 0), NoiseSpec(), 1)
    return store.put_folder(folder)


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test draws anew: no shard of another is found."""
    monkeypatch.setattr(sized, "_fits", {})
    monkeypatch.setattr("tasks.sampling.shards.store.bound", lambda name, kind: {})


def drawn(cell: GridCell, ref: ArtifactRef, start: int, stop: int, **more: Any) -> Shard:
    shard: Shard = task_for(cell).fn(cell, ref, start, stop, CARDS, **more)
    return shard


def pixels(shard: Shard) -> NDArray[np.uint8]:
    return store.get_arrays(shard)["images"]


def test_a_cell_of_a_cpu_keeps_the_name_that_it_had() -> None:
    cell = GridCell(SamplerSpec(steps=10, eta=0.5), seed=3)
    assert digest(cell) == NAME_BEFORE_CARDS
    names = {digest(cell), *(digest(on_card(cell, n)) for n in (8, 16))}
    names.add(digest(replace(cell, card=OnCard("cuda", 16))))
    names.add(digest(replace(cell, card=OnCard("cpu", 16, compiled=True))))
    assert len(names) == 5


@pytest.mark.parametrize("sampler", [NOISY, EULER])
def test_bits_depend_on_no_neighbour_and_are_near_those_of_a_cpu(
    checkpoint: ArtifactRef, sampler: Any
) -> None:
    cell = on_card(GridCell(sampler, seed=1))
    whole = pixels(drawn(cell, checkpoint, 0, 40))
    assert np.array_equal(whole[:20], pixels(drawn(cell, checkpoint, 0, 20)))
    assert np.array_equal(whole[20:], pixels(drawn(cell, checkpoint, 20, 40)))
    plain = replace(cell, card=None)
    shard: Shard = task_for(plain).fn(plain, checkpoint, 0, 40, Execution())
    apart = np.abs(pixels(shard).astype(int) - whole.astype(int))
    assert apart.max() <= 1
    assert (shard.batch, shard.device) == (0, "cpu")


def test_a_shard_is_extended_in_the_batch_of_its_beginning(
    checkpoint: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    cell = on_card(GridCell(NOISY, seed=77))
    first = drawn(cell, checkpoint, 0, 10)
    assert (first.batch, first.drawn) == (16, 10)
    monkeypatch.setitem(sized._fits, digest(cell, checkpoint), 4)
    longer = drawn(cell, checkpoint, 0, 30)
    assert (longer.batch, longer.drawn) == (16, 20)
    assert np.array_equal(pixels(longer)[:10], pixels(first))


def test_an_extended_shard_asks_for_each_image_where_a_whole_one_does() -> None:
    whole = list(sized.batches(range(100, 150), 16, True))
    rest = list(sized.batches(range(121, 150), 16, True, 21))

    def places(cut: list[sized.Batch]) -> dict[int, int]:
        return {batch.keys[place]: place for batch in cut for place in range(16)[batch.wanted]}

    assert {len(batch.keys) for batch in whole + rest} == {16}
    assert list(places(whole)) == list(range(100, 150))
    assert places(rest) == {k: v for k, v in places(whole).items() if k >= 121}
    plain = list(sized.batches(range(100, 150), 16, False, 21))
    assert [len(batch.keys) for batch in plain] == [16, 16, 16, 2]


def of_memory_for(most: int, plain: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Any, x: Any, *args: Any, **kwargs: Any) -> Any:
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return plain(self, x, *args, **kwargs)

    return forward


def test_memory_that_runs_out_halves_the_batch_of_the_cell(
    checkpoint: ArtifactRef, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import diffusers

    cell = on_card(GridCell(NOISY, seed=2))
    wanted = pixels(drawn(on_card(cell, 4), checkpoint, 0, 20))
    kind = diffusers.UNet2DModel
    monkeypatch.setattr(kind, "forward", of_memory_for(7, kind.forward))
    memory.forget()
    with caplog.at_level(logging.WARNING):
        first = drawn(cell, checkpoint, 0, 20)
    assert first.batch == 4
    assert np.array_equal(pixels(first), wanted)
    assert ["batches of 8" in record.message for record in caplog.records] == [True, True]
    assert "--batch-size 4 asks for that at once" in caplog.messages[-1]
    caplog.clear()
    assert drawn(cell, checkpoint, 20, 40).batch == 4
    assert not caplog.records
    monkeypatch.setattr(kind, "forward", of_memory_for(0, kind.forward))
    memory.forget()
    with pytest.raises(torch.OutOfMemoryError):
        drawn(cell, checkpoint, 40, 60)
    memory.forget()


def test_a_shard_is_not_extended_in_smaller_batches(
    checkpoint: ArtifactRef, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffusers

    monkeypatch.undo()
    cell = on_card(GridCell(NOISY, seed=78))
    first = drawn(cell, checkpoint, 0, 10)
    kind = diffusers.UNet2DModel
    monkeypatch.setattr(kind, "forward", of_memory_for(7, kind.forward))
    memory.forget()
    with pytest.raises(MemoryError, match="batches of 16, in which its first images were drawn"):
        drawn(cell, checkpoint, 0, 30)
    assert np.array_equal(pixels(drawn(cell, checkpoint, 0, 10)), pixels(first))
    memory.forget()


def test_images_in_batches_of_two_sizes_or_of_two_kinds_of_device_are_no_cell(
    checkpoint: ArtifactRef,
) -> None:
    cell = on_card(GridCell(NOISY, seed=3))
    shards = [drawn(on_card(cell, n), checkpoint, 0, 8) for n in (16, 8)]
    assert one_batch(shards[:1]) == 16
    with pytest.raises(ValueError, match=r"16 at once and others 8.*--batch-size 8"):
        one_batch(shards)
    assert one_device(shards) == "cpu"
    with pytest.raises(ValueError, match="on cpu and others on cuda, which round otherwise"):
        one_device([shards[0], replace(shards[1], device="cuda")])
    require_own_device(cell, "cpu:0,cpu:1")
    require_own_device(replace(cell, card=None), "cpu")
    for one, device in ((cell, "cpu"), (replace(cell, card=None), "cpu:0"), (cell, "cuda:1")):
        with pytest.raises(ValueError, match="which rounds otherwise; draw all"):
            require_own_device(one, device)


def test_bfloat16_and_tf32_are_cells_of_their_own(checkpoint: ArtifactRef) -> None:
    cell = on_card(GridCell(NOISY, seed=4))
    plain = pixels(drawn(cell, checkpoint, 0, 16)).astype(int)
    halved = pixels(drawn(replace(cell, dtype="bfloat16"), checkpoint, 0, 16)).astype(int)
    rounded = pixels(drawn(replace(cell, dtype="tf32"), checkpoint, 0, 16))
    assert 0 < np.abs(plain - halved).mean() < 2
    assert np.array_equal(plain, rounded)  # a CPU has no tensor cores
    assert digest(cell) != digest(replace(cell, dtype="tf32"))


def test_a_pipeline_on_a_card_draws_the_images_of_a_cpu(tmp_path: Path) -> None:
    tiny = PIPELINES["sdxl"]
    tiny.make().save_pretrained(tmp_path / "sdxl")
    ref = store_pipeline.fn(pipeline_digest(tmp_path / "sdxl"), str(tmp_path / "sdxl"))
    from safetensors.torch import save

    conditions = store.put(save(tiny.conditions(range(3))), "conditions")
    spec = SchedulerSpec(
        "dpmpp_2m", 3, guidance_scale=3.0, pipeline="StableDiffusionXLPipeline", batch=4
    )
    cell = GridCell(spec, seed=5)
    plain = task_for(cell).fn(cell, ref, 0, 6, Execution(), encoded=conditions)
    shard = drawn(on_card(cell, 4), ref, 0, 6, encoded=conditions)
    apart = np.abs(pixels(shard).astype(int) - pixels(plain).astype(int))
    assert apart.max() <= 1
    assert (shard.batch, shard.nfe) == (4, plain.nfe)
