"""Which rows of what a network is given are the prompts', and its answer by those alone."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

Forward = Callable[..., Any]
Given = Mapping[str, Any]


@dataclass(frozen=True)
class Halves:
    """How a pipeline's call asks its network for guidance, each step.

    Attributes:
        doubled: The network's arguments that have rows for the prompts and rows without them, by
            name (`added_cond_kwargs.text_embeds` within a dict); empty where the network is asked
            twice, for the prompts first.
        prompts_last: Whether the prompts' rows are the second half.
    """

    doubled: tuple[str, ...]
    prompts_last: bool

    def prompts_of(self, told: Any, name: str) -> Any:
        """Returns what an argument is for the prompts alone."""
        if isinstance(told, Mapping):
            return {key: self.prompts_of(part, f"{name}.{key}") for key, part in told.items()}
        if isinstance(told, tuple):
            return tuple(self.prompts_of(part, f"{name}.{i}") for i, part in enumerate(told))
        if name not in self.doubled:
            return told
        middle = len(told) // 2
        return told[middle:] if self.prompts_last else told[:middle]


@dataclass(eq=False)
class Unguided:
    """A step without guidance.

    Attributes:
        who: The pipeline's class, for messages.
        n_images: Of the batch.
        said: What the network answered so far.
    """

    who: str
    n_images: int
    said: list[Any] = field(default_factory=list)


def found_halves(one: Given, other: Given, two: Given) -> Halves:
    """Finds how a call asks for guidance: the rows that move with the prompt are the prompts'.

    Args:
        one: What the network was given at its first evaluation, the images first.
        other: The same for another prompt.
        two: The same for two images like that of `one`.

    Raises:
        ValueError: If the rows are neither two halves, of which one is the prompts', nor the
            prompts' alone; the message says what they are.
    """
    n = len(next(iter(one.values())))
    here, there, more = (dict(_parts(given)) for given in (one, other, two))
    if not here.keys() == there.keys() == more.keys():
        raise ValueError("gives its network other arguments for other prompts")
    if n == 1 and any(_differ(part, there[name]) for name, part in here.items()):
        return Halves((), False)
    doubled = [name for name, part in here.items() if n == len(part) == len(more[name]) / 2]
    moved = [any(_differ(here[name][i], there[name][i]) for name in doubled) for i in range(n)]
    if n != 2 or moved[0] == moved[1]:
        raise ValueError(f"asks its network of {n} rows an image, {sum(moved)} for the prompt")
    for name, part in here.items():
        wanted = [row for row in part for _ in range(2)] if name in doubled else [*part]
        if _differ(wanted, [*more[name]]):
            raise ValueError(f"gives its network {name} in an order of its own")
    return Halves(tuple(doubled), moved[1])


def _parts(told: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors and lists among a network's arguments with their names, those within too."""
    if isinstance(told, (Mapping, tuple)):
        for key, part in told.items() if isinstance(told, Mapping) else enumerate(told):
            yield from _parts(part, f"{name}.{key}" if name else str(key))
    elif isinstance(told, list) or (isinstance(told, Tensor) and told.ndim):
        yield name, told


def _differ(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return not (isinstance(other, Tensor) and torch.equal(one, other))
    if isinstance(one, (list, tuple)):
        return len(one) != len(other) or any(map(_differ, one, other))
    return bool(one != other)


def without_guidance(
    halves: Halves, now: Callable[[], Unguided | None]
) -> Callable[[str, Forward], Forward]:
    """Makes of a network's forward one that is asked for the prompts alone where there is no
    guidance. Its answer stands for both halves: u + g (c - u) = c at u = c, in all number formats.

    Args:
        halves: How the pipeline's call asks.
        now: Returns the step that is made; None where it is guided.

    Returns:
        What `replace_networks` takes. A call that asks in another way than it was rehearsed is a
        ValueError.
    """

    def instead(name: str, forward: Forward) -> Forward:
        signature = inspect.signature(forward)

        def asked(*args: Any, **kwargs: Any) -> Any:
            step = now()
            if step is None:
                return forward(*args, **kwargs)
            told = signature.bind(*args, **kwargs)
            n_rows, n_calls = len(next(iter(told.arguments.values()))), len(step.said)
            is_double = bool(halves.doubled) and n_rows == 2 * step.n_images
            if not (is_double or n_rows == step.n_images) or n_calls >= (
                1 if halves.doubled else 2
            ):
                raise ValueError(
                    f"{step.who} asks its network of {n_rows} rows for {step.n_images} images in "
                    f"call {n_calls + 1} of a step, so that its guidance cannot be left out"
                )
            if is_double:
                for key, value in told.arguments.items():
                    told.arguments[key] = halves.prompts_of(value, key)
            step.said += [step.said[0] if n_calls else forward(*told.args, **told.kwargs)]
            return _twice(step.said[0]) if is_double else copy.deepcopy(step.said[0])

        return asked

    return instead


def _twice(said: Any) -> Any:
    """A network's answer as if it were asked of the same images twice over."""
    if isinstance(said, Tensor):
        return torch.cat([said, said])
    if isinstance(said, tuple):
        return tuple(map(_twice, said))
    if isinstance(said, list):  # a tensor an image
        return said + said
    kind: Any = type(said)  # an output of diffusers
    return kind(**{name: _twice(part) for name, part in said.items()})
