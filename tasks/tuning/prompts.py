"""Prompts dealt out: to tune on, to judge on, and for the cells that are scored.

They are mixed first: lists are often in an order that comes again, such as subject by subject, and
every second or fourth prompt of it would be of some subjects alone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TypeVar

import safetensors.torch

from ddim_core.common.digest import digest
from tasks.images.stored_prompts import store_prompts, stored_prompts
from tasks.storage import places, store
from tasks.storage.store import ArtifactRef

T = TypeVar("T")
FEW = 4  # prompts: fewer serve for all three


@dataclass(frozen=True)
class Dealt:
    """Digests of stored lists of prompts, and the file of those that cells are drawn for.

    Attributes:
        note: What is to be said of it, for people; empty where all three have no prompt in common.
    """

    tuning: str
    fresh: str
    scored: str
    note: str


def deal(prompts: str, given: str | None) -> Dealt:
    """Deals prompts out, so that no cell is scored on prompts that were tuned on.

    Args:
        prompts: Digest of those of the cells.
        given: Digest of others to tune and judge on, half for either; None deals those of the
            cells: half are scored, of the rest half are tuned on.
    """
    whole = stored_prompts(prompts)
    if given is not None:
        tuning, fresh = _halves(_mixed(list(dict.fromkeys(stored_prompts(given)))))
        note = _said(tuning, fresh, whole)
        return Dealt(store_prompts(tuning), store_prompts(fresh), _file(prompts, whole), note)
    unique = list(dict.fromkeys(whole))
    if len(unique) < FEW:
        return Dealt(prompts, prompts, _file(prompts, whole), _said(unique, unique, unique))
    mixed = _mixed(unique)
    tuning, fresh = _halves(mixed[1::2])
    scored = mixed[::2]
    kept = store_prompts(scored)
    return Dealt(store_prompts(tuning), store_prompts(fresh), _file(kept, scored), "")


def _said(tuning: list[str], fresh: list[str], scored: list[str]) -> str:
    """What prompts have in common that should have nothing."""
    if set(tuning) & set(scored):
        return "Some prompts that are scored were tuned on as well, with other noise."
    if set(tuning) & set(fresh):
        return "The prompts that were tuned on were judged on as well, with other noise."
    return ""


def deal_conditions(conditions: ArtifactRef) -> tuple[ArtifactRef, ArtifactRef]:
    """Deals what prompts are encoded to, mixed: half of the rows to tune on, half to judge on."""
    stored = safetensors.torch.load(store.get(conditions))
    n = max(len(value) for value in stored.values())
    told = [
        safetensors.torch.save({name: v[i].clone() for name, v in stored.items() if len(v) == n})
        for i in range(n)
    ]
    halves = []
    for rows in _halves(sorted(range(n), key=lambda i: hashlib.sha256(told[i]).digest())):
        half = {
            name: (value[rows] if len(value) == n else value).contiguous().clone()
            for name, value in stored.items()
        }
        halves.append(store.put(safetensors.torch.save(half), conditions.kind))
    return halves[0], halves[1]


def _mixed(prompts: list[str]) -> list[str]:
    """Prompts in an order that only they decide, whatever order they came in."""
    return sorted(prompts, key=digest)


def _halves(of: list[T]) -> tuple[list[T], list[T]]:
    return (of, of) if len(of) < 2 else (of[::2], of[1::2])


def _file(named: str, prompts: list[str]) -> str:
    """A file of JSON Lines with a prompt each, as a grid is given them."""
    lines = [json.dumps({"text": prompt}, ensure_ascii=False) for prompt in prompts]
    path = places.local_dir("work") / f"prompts-{named[:32]}.jsonl"
    store.write_whole(str(path), "".join(f"{line}\n" for line in lines).encode())
    return str(path)
