"""Prompts encoded once, by the pipeline's own encoders as its own call encodes them."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from ddim_core.pipelines.arguments import call_arguments
from ddim_core.pipelines.opening import OpenedPipeline
from ddim_core.pipelines.rehearsal import REHEARSED_STEPS, rehearse
from ddim_core.pipelines.takes import call_tree

ON_CARD = 32  # prompts at once
ENCODING = Lock()  # a tokenizer keeps its padding in itself while a call lasts, and is shared
GUIDED = 2.0  # any guidance above 1: the negative prompt is encoded too


def encode_prompts(
    opened: OpenedPipeline, prompts: Sequence[str], negative: str = "", n: int | None = None
) -> dict[str, Tensor]:
    """Encodes prompts to what the pipeline's call takes in their place.

    The call itself encodes, up to the first evaluation of its network, with its own settings
    (length, template, pooled or not). One prompt at a time: what it is encoded to does not depend
    on its neighbours. On a card in batches of one size, the last one filled up, where the pipeline
    encodes all prompts to one length: there only rounding may depend on the place in the list.

    Args:
        opened: A text-to-image pipeline with its text encoders.
        prompts: At least one.
        negative: What guidance leads away from; "" is what the pipeline takes by itself.
        n: How many of the first are wanted; None wants all. All are encoded where the pipeline
            takes masks: how far a prompt is filled up depends on the longest.

    Returns:
        Tensors by the call's parameter names, on the CPU, in the encoders' number format: a row per
        prompt; of names that begin with `negative_`, one row for all. Prompts of unequal length are
        filled up where the pipeline takes masks.

    Raises:
        ValueError: If the pipeline takes no prompts or has no encoders, or encodes prompts to
            unequal lengths and takes no masks.
    """
    if opened.takes.modality != "text-to-image":
        raise ValueError(f"{opened.name} takes no prompts; it is {opened.takes.modality}")
    if not opened.encodes:
        raise ValueError(
            f"{opened.name} has no text encoders here; give what they would make of the "
            "prompts, as a .safetensors file of "
            f"{', '.join(opened.takes.conditions)}"
        )
    if not prompts:
        raise ValueError("there are no prompts; give at least one")
    guided = opened.takes.guidance == "real"
    first = _encoded(opened, prompts[:1], negative, GUIDED if guided else 1.0)
    if guided and not negative and not any(name.startswith("negative_") for name in first):
        first = _encoded(opened, prompts[:1], "", GUIDED, says_nothing=True)
    if not any("mask" in name for name in first):
        prompts = prompts[:n]
    size = ON_CARD if opened.on_card and _of_one_length(opened, first) else 1
    rows = [first] if size == 1 else []
    for start in range(len(rows), len(prompts), size):
        some = list(prompts[start : start + size])
        made = _encoded(opened, some + some[:1] * (size - len(some)), "", 1.0)
        rows.append({name: value[: len(some)] for name, value in made.items()})
    positive = [{n: v for n, v in row.items() if not n.startswith("negative_")} for row in rows]
    if not positive[0]:
        raise ValueError(
            f"{opened.name} encodes its prompts in a way that is not known here; give what they "
            f"are encoded to: {', '.join(opened.takes.conditions) or 'it takes no such thing'}"
        )
    negatives = {name: v for name, v in first.items() if name.startswith("negative_")}
    return _stacked(opened.name, positive, negatives)


def _of_one_length(opened: OpenedPipeline, first: dict[str, Tensor]) -> bool:
    """Whether all prompts are encoded to the length of the first, a row each: two empty ones are,
    and they are not listed one by one."""
    empty = _encoded(opened, ["", ""], "", 1.0)
    wanted = {n: (2, *v.shape[1:]) for n, v in first.items() if not n.startswith("negative_")}
    return not opened.takes.listed and wanted == {n: tuple(v.shape) for n, v in empty.items()}


def _encoded(
    opened: OpenedPipeline,
    prompts: Sequence[str],
    negative: str,
    guidance: float,
    says_nothing: bool = False,
) -> dict[str, Tensor]:
    """What prompts are encoded to, and the negative one where guidance asks for it."""
    takes, own = opened.takes, opened.pipeline.scheduler
    streams = [torch.Generator().manual_seed(0) for _ in prompts]
    arguments = call_arguments(
        takes, {}, streams, REHEARSED_STEPS, guidance, 0.0, opened.size, None
    )
    arguments["prompt"] = list(prompts)
    if (negative or says_nothing) and "negative_prompt" in takes.parameters:
        arguments["negative_prompt"] = [negative] * len(prompts)
    with ENCODING:
        told = rehearse(opened.pipeline, type(own).from_config(own.config), arguments)
    found: dict[str, Tensor] = {}
    for names, values in zip(_targets(type(opened.pipeline)), told.encoded, strict=False):
        values = values if isinstance(values, tuple) else (values,)
        if len(names) != len(values):
            continue
        for name, value in zip(names, values, strict=True):
            if name in takes.listed and isinstance(value, list) and value:
                value = value[0][None]
            if name in takes.conditions and isinstance(value, Tensor):
                found[name] = value.cpu()
    return found


def _targets(kind: Any) -> list[list[str]]:
    """The names that a pipeline's call gives to what `encode_prompt` returns, call by call."""
    found = []
    for node in ast.walk(call_tree(kind)):
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            continue
        if ast.unparse(node.value.func) == "self.encode_prompt":
            target = node.targets[0]
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            found.append((node.lineno, [ast.unparse(part) for part in parts]))
    return [names for _, names in sorted(found)]


def _stacked(
    who: str, positive: list[dict[str, Tensor]], negative: dict[str, Tensor]
) -> dict[str, Tensor]:
    """One tensor a name. Where prompts have unequal lengths and masks, all are filled up with
    zeros that the mask leaves out, to one more than the longest: so no batch is without a mask."""
    lengths = {v.shape[1] for row in (*positive, negative) for n, v in row.items() if "mask" in n}
    if len(lengths) > 1:
        positive = [_filled(row, lengths) for row in positive]
        negative = _filled(negative, lengths)
    stacked: dict[str, Tensor] = {}
    for name in positive[0]:
        values = [row[name] for row in positive]
        if len({value.shape[1:] for value in values}) > 1:
            raise ValueError(
                f"{who} encodes prompts to unequal lengths and takes no masks, so that they cannot "
                "stand in one batch; give prompts of one length"
            )
        stacked[name] = torch.cat(values)
    return stacked | negative


def _filled(row: dict[str, Tensor], lengths: set[int]) -> dict[str, Tensor]:
    whole = max(lengths) + 1
    return {
        name: torch.cat([v, v.new_zeros(1, whole - v.shape[1], *v.shape[2:])], dim=1)
        if v.shape[1] in lengths and ("mask" in name or v.ndim > 2)
        else v
        for name, v in row.items()
    }
