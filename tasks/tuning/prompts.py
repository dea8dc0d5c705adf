"""Prompts dealt out: to tune on, to judge on, and for the cells that are scored."""

from __future__ import annotations

import json
from dataclasses import dataclass

import safetensors.torch

from tasks.images.stored_prompts import store_prompts, stored_prompts
from tasks.storage import places, store
from tasks.storage.store import ArtifactRef

FEW = 4  # prompts: fewer serve for all three


@dataclass(frozen=True)
class Dealt:
    """Digests of stored lists of prompts, and the file of those that cells are drawn for.

    Attributes:
        shared: They are too few to be dealt: all three are the same.
    """

    tuning: str
    fresh: str
    scored: str
    shared: bool


def deal(prompts: str, given: str | None) -> Dealt:
    """Deals prompts out, so that no cell is scored on prompts that were tuned on.

    Args:
        prompts: Digest of those of the cells.
        given: Digest of others to tune and judge on, every second for either; None deals those of
            the cells: every second is scored, of the rest every second is tuned on.
    """
    whole = stored_prompts(prompts)
    if given is not None:
        tuning, fresh, shared = _halves(stored_prompts(given))
        return Dealt(store_prompts(tuning), store_prompts(fresh), _file(prompts, whole), shared)
    if len(whole) < FEW:
        return Dealt(prompts, prompts, _file(prompts, whole), True)
    scored, others = whole[::2], whole[1::2]
    tuning, fresh, _ = _halves(others)
    kept = store_prompts(scored)
    return Dealt(store_prompts(tuning), store_prompts(fresh), _file(kept, scored), False)


def deal_conditions(conditions: ArtifactRef) -> tuple[ArtifactRef, ArtifactRef]:
    """Deals what prompts are encoded to: every second row to tune on, the others to judge on."""
    stored = safetensors.torch.load(store.get(conditions))
    n = max(len(value) for value in stored.values())
    halves = []
    for rows in (slice(0, None, 2), slice(1, None, 2)) if n > 1 else (slice(None), slice(None)):
        half = {
            name: (value[rows] if len(value) == n else value).contiguous().clone()
            for name, value in stored.items()
        }
        halves.append(store.put(safetensors.torch.save(half), conditions.kind))
    return halves[0], halves[1]


def _halves(prompts: list[str]) -> tuple[list[str], list[str], bool]:
    if len(prompts) < 2:
        return prompts, prompts, True
    return prompts[::2], prompts[1::2], False


def _file(digest: str, prompts: list[str]) -> str:
    """A file with a prompt a line, as a grid is given them; of JSON Lines where one has lines."""
    lines = [json.dumps({"text": prompt}, ensure_ascii=False) for prompt in prompts]
    path = places.local_dir("work") / f"prompts-{digest[:32]}.jsonl"
    store.write_whole(str(path), "".join(f"{line}\n" for line in lines).encode())
    return str(path)
