"""A pipeline's own call up to the first evaluation of its network: what it would do, in no time.

So a pair that cannot work is refused before anything is drawn, prompts are encoded as the pipeline
encodes them, and the shape of x_T is the one that the pipeline itself draws.
"""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ddim_core.pipelines.arguments import blank_conditions, call_arguments, placed
from ddim_core.pipelines.stage import Starts, own_copy, replace_networks
from ddim_core.pipelines.takes import Takes, networks_of
from ddim_core.safe_files.safe_load import first_line

REHEARSED_STEPS = 2
MISSED = re.compile(r"'(?:FrozenDict|\w*Scheduler)' object has no attribute '(\w+)'")


class _Reached(BaseException):
    """The network is about to be asked; no `except Exception` of a pipeline catches it."""


@dataclass(eq=False)
class Rehearsed:
    """What a call did before its first evaluation.

    Attributes:
        drawn: Shape of what it drew itself, without the batch; None if it drew nothing.
        dtype: Number format of that.
        entered: Shape of the noisy images that the network was given, the batch included.
        asked: All that it was given, by name, those images first.
        height, width: Of the images, where the call checks them or makes x_T by them; else 0.
        encoded: What each call of `encode_prompt` gave, in order.
        scheduler: The scheduler, with its steps set.
    """

    drawn: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None
    entered: tuple[int, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    height: int = 0
    width: int = 0
    encoded: list[Any] = field(default_factory=list)
    scheduler: Any = None


def rehearse(pipeline: Any, scheduler: Any, arguments: Mapping[str, Any]) -> Rehearsed:
    """Makes a pipeline's call on a copy of its own, and ends it where the network would be asked.

    Args:
        pipeline: Left as it is.
        scheduler: A fresh one, whose steps the call sets.
        arguments: The call's; its `generator` is a list of streams.

    Raises:
        ValueError: If the call cannot begin so, with its own reason.
    """
    told = Rehearsed(scheduler=scheduler)
    mine = own_copy(pipeline, scheduler)
    replace_networks(mine, _stop_at(told))
    _watch_sizes(mine, told)
    if hasattr(mine, "encode_prompt"):
        vars(mine)["encode_prompt"] = _kept(mine.encode_prompt, told.encoded)
    starts = Starts(arguments["generator"])
    try:
        with starts:
            mine(**arguments)
    except _Reached:
        told.drawn, told.dtype = starts.shape, starts.dtype
        return told
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a pipeline may refuse a pair in every way
        raise ValueError(
            refusal(type(pipeline).__name__, type(scheduler).__name__, error)
        ) from error
    raise ValueError(f"{type(pipeline).__name__} makes an image without asking its network")


def start_of(
    pipeline: Any, takes: Takes, own: Any, size: tuple[int, int]
) -> tuple[Rehearsed, tuple[int, ...]]:
    """Tries a pipeline's call with its own scheduler: what it does by itself, and the shape of the
    x_T that it takes in the same place.

    Most take x_T in the shape that they draw, some in the shape that their network is given.

    Args:
        pipeline: Left as it is.
        takes: What its call takes.
        own: Its own scheduler, of which fresh ones are made.
        size: Height and width in pixels; 0 is the pipeline's own.

    Raises:
        ValueError: If the call cannot begin so, or takes no x_T in a shape that it draws.
    """
    name = type(pipeline).__name__
    network = getattr(pipeline, networks_of(pipeline)[0])
    conditions = placed(blank_conditions(pipeline, takes), network.device, network.dtype)

    def trial(latents: Any) -> Rehearsed:
        streams = [torch.Generator().manual_seed(0)]
        arguments = call_arguments(
            takes, conditions, streams, REHEARSED_STEPS, 1.0, 0.0, size, latents
        )
        return rehearse(pipeline, type(own).from_config(own.config), arguments)

    try:
        first = trial(None)
    except ValueError as error:
        part = networks_of(pipeline)[0]
        if network.config.get("sample_size", 0) is None:
            raise ValueError(
                f"sample_size is null in {part}/config.json, and the call of a {name} takes the "
                "size of its images from it; it must be a whole number"
            ) from error
        told = first_line(error.__cause__ or error)
        with_what = " and stand-ins for what prompts are encoded to" if takes.conditions else ""
        raise ValueError(
            f"the call of a {name} cannot be tried with its own {type(own).__name__}{with_what}: "
            f"{told}"
        ) from error
    if first.drawn is None:
        raise ValueError(f"{name} does not draw its noise from the generator that it is given")
    if not takes.latents:
        return first, first.drawn
    for shape in dict.fromkeys([first.drawn, first.entered[1:]]):
        try:
            again = trial(torch.zeros(1, *shape, dtype=first.dtype, device=network.device))
        except ValueError:
            continue
        if again.entered == first.entered and again.drawn is None:
            return first, shape
    raise ValueError(f"{name} does not take latents in the shape that it draws them in")


def refusal(who: str, sampler: str, error: Exception) -> str:
    """Says in a sentence why a pipeline's call and a scheduler do not fit each other."""
    reason = first_line(error).rstrip(".")
    failed = traceback.extract_tb(error.__traceback__)[-1].line or ""
    if isinstance(error, AssertionError) and "use_dynamic_shifting" in failed:
        reason = (
            "the pipeline shifts its sigmas by the size of the picture (mu), which this scheduler "
            "does with use_dynamic_shifting=true and time_shift_type=exponential alone"
        )
    elif "attn_mask dtype" in reason:
        reason = (
            "its masks of prompts are not of truth values, as its network takes them; give them "
            "as bool, which is what its own encoders make"
        )
    elif "can't multiply sequence" in reason:
        reason = (
            "the pipeline hands it a plain list of sigmas, which this scheduler cannot shift; take "
            "own or flow_euler"
        )
    elif "does not support custom sigmas" in reason or "'sigmas'" in reason:
        reason = (
            "the pipeline hands it sigmas, and this scheduler takes none; take own or flow_euler"
        )
    elif named := MISSED.search(reason):
        reason = f"the pipeline asks its scheduler for {named[1]}, which this one has not"
    elif "unexpected keyword argument" in reason:
        reason = f"the pipeline hands it what it does not take ({reason})"
    return f"{who} cannot be sampled with {sampler}: {reason}"


def _stop_at(told: Rehearsed) -> Callable[[str, Callable[..., Any]], Callable[..., Any]]:
    def instead(name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(forward)

        def stop(*args: Any, **kwargs: Any) -> Any:
            told.asked = signature.bind(*args, **kwargs).arguments
            images = next(iter(told.asked.values()))
            first = images[0] if isinstance(images, (list, tuple)) else images
            told.entered = tuple(first.shape)
            raise _Reached

        return stop

    return instead


def _watch_sizes(mine: Any, told: Rehearsed) -> None:
    """Takes note of the height and width of the images, which a call checks or, where it is given
    none, hands on when x_T is made."""
    for name in ("check_inputs", "prepare_latents"):
        if (plain := getattr(mine, name, None)) is not None:
            vars(mine)[name] = _noting_size(plain, told)


def _noting_size(plain: Callable[..., Any], told: Rehearsed) -> Callable[..., Any]:
    signature = inspect.signature(plain)

    def noting(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        told.height = told.height or int(given.get("height") or 0)
        told.width = told.width or int(given.get("width") or 0)
        return plain(*args, **kwargs)

    return noting


def _kept(encode: Callable[..., Any], kept: list[Any]) -> Callable[..., Any]:
    def encoded(*args: Any, **kwargs: Any) -> Any:
        kept.append(encode(*args, **kwargs))
        return kept[-1]

    return encoded
