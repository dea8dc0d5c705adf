"""One run of a pipeline's call on a copy of its own: what it draws, asks and steps is watched.

Several threads draw from one pipeline at once. Each run has a shallow copy of the pipeline and of
its networks: the weights are shared, and what a call sets on them is not.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ddim_core.pipelines.arguments import Setting
from ddim_core.pipelines.guidance.halves import Unguided
from ddim_core.pipelines.takes import changes_networks, networks_of
from ddim_core.samplers.catalogue import OWN
from ddim_core.samplers.scheduler import asks_at, set_steps

CLOSE = 0.02  # of x_T's spread: what rounding x_T to bfloat16 moves it by, four times over


def own_copy(pipeline: Any, scheduler: Any) -> Any:
    """Returns a pipeline that shares all weights with another, and nothing that a call sets."""
    mine = copy.copy(pipeline)
    changes = changes_networks(type(pipeline))
    for name, part in pipeline.components.items():
        if isinstance(part, torch.nn.Module):
            # A decoder that a call turns to float32 and back is changed in its weights themselves.
            upcast = getattr(getattr(part, "config", None), "force_upcast", False)
            whole = upcast and next(part.parameters()).dtype == torch.float16
            shared = {} if whole else {id(t): t for t in (*part.parameters(), *part.buffers())}
            deep = whole or (changes and name in networks_of(pipeline))
            vars(mine)[name] = copy.deepcopy(part, shared) if deep else copy.copy(part)
    vars(mine)["scheduler"] = scheduler
    mine.set_progress_bar_config(disable=True)
    return mine


def watch_networks(mine: Any, seen: Callable[[Any], None]) -> None:
    """Has `seen` told of the noisy images of every evaluation of a copy's networks, before it."""
    for name in networks_of(mine):
        network = getattr(mine, name)
        network.forward = _watched(network.forward, seen)


def replace_networks(
    mine: Any, instead: Callable[[str, Callable[..., Any]], Callable[..., Any]]
) -> None:
    """Has what `instead` makes of a network's name and its forward called in the forward's place,
    on a copy of a pipeline."""
    for name in networks_of(mine):
        network = getattr(mine, name)
        network.forward = _seeming(network.forward, instead(name, network.forward))


def _watched(forward: Callable[..., Any], seen: Callable[[Any], None]) -> Callable[..., Any]:
    first = next(iter(inspect.signature(forward).parameters))

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen(args[0] if args else kwargs[first])
        return forward(*args, **kwargs)

    return _seeming(forward, watched)


def take_own_steps(scheduler: Any, setting: Setting) -> None:
    """Has a scheduler take the setting's own list of timesteps or sigmas, if it has one, when the
    pipeline sets its steps, whatever the pipeline asks for but a shift by the picture's size."""
    if setting.sampler.n_listed is None:
        return
    plain = scheduler.set_timesteps

    def listed(*args: Any, **kwargs: Any) -> None:
        del scheduler.set_timesteps  # the class's own again
        told = inspect.signature(plain).bind(*args, **kwargs).arguments
        device = told.get("device") or "cpu"
        set_steps(scheduler, setting.sampler, setting.steps, device, told.get("mu"))

    scheduler.set_timesteps = _seeming(plain, listed)


def _seeming(original: Callable[..., Any], instead: Callable[..., Any]) -> Callable[..., Any]:
    """A function with another's signature, which pipelines look at before they call it."""

    @functools.wraps(original)
    def called(*args: Any, **kwargs: Any) -> Any:
        return instead(*args, **kwargs)

    return called


class Starts(TorchFunctionMode):
    """Inside, the first draw from each of some streams is x_T in place of what would be drawn.

    For pipelines that draw x_T themselves and take none. It holds for the thread that is inside
    alone. The streams stay where they are: later draws are as if x_T had been given.

    Args:
        streams: One per image.
        x_T: float32 [len(streams), ...]; None draws as ever, and only takes note of `shape`.

    Attributes:
        shape: Of the first draw of all, without the batch; None before it.
        dtype: Its number format.
    """

    def __init__(self, streams: Sequence[torch.Generator], x_T: Tensor | None = None) -> None:
        super().__init__()
        self.shape: tuple[int, ...] | None = None
        self.dtype: torch.dtype | None = None
        self.n_left = len(streams)
        self._x_T = x_T
        self._waiting = {id(stream): row for row, stream in enumerate(streams)}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is not torch.randn or id(given.get("generator")) not in self._waiting:
            return func(*args, **given)
        row = self._waiting.pop(id(given["generator"]))
        drawn = tuple(args[0]) if args and not isinstance(args[0], int) else tuple(args)
        if self.shape is None:
            self.shape, self.dtype = drawn[1:], given.get("dtype") or torch.float32
        self.n_left -= 1
        if self._x_T is None:
            return func(*args, **given)
        mine = self._x_T[row : row + 1]
        if drawn != tuple(mine.shape):
            raise ValueError(f"x_T has shape {tuple(mine.shape)}; the pipeline draws {drawn}")
        return mine.to(device=given.get("device"), dtype=given.get("dtype"))


class Conductor:
    """Hands each image's stream to a scheduler's steps, and sees that it is used as it must be.

    A pipeline may hand its scheduler no generator, never scale the network's input, or start from
    noise of another size than the scheduler's: all three draw something else without a word. What
    is missing of streams and eta is handed on; the others are refused, but for the pipeline's own
    scheduler, which it was written for.

    Args:
        scheduler: A fresh scheduler, which is changed.
        who: The pipeline's class, for messages.
        setting: What is drawn: its steps and eta are handed on where the call does not.
        streams: One per image of the batch.
        x_T: What the images start from, before the scheduler's init_noise_sigma.
        inside: Tells of a timestep whether there is guidance; None: at all.

    Attributes:
        first_told: What the pipeline made of its network's answer at the first step, [batch, ...].
    """

    first_told: Tensor

    def __init__(
        self,
        scheduler: Any,
        who: str,
        setting: Setting,
        streams: Sequence[torch.Generator],
        x_T: Tensor,
        inside: Callable[[float], bool] | None = None,
    ) -> None:
        self._n_steps = 0
        self._inside, self._listed = inside, list[float]()
        self._unguided: Unguided | None = None
        self._is_own = setting.sampler.name == OWN
        self._scheduler, self._who, self._eta, self._x_T = scheduler, who, setting.eta, x_T
        self._streams = list(streams)
        self._scaled = False
        take_own_steps(scheduler, setting)
        self._signature = inspect.signature(scheduler.step)
        self._step_of = scheduler.step
        scheduler.step = _seeming(self._step_of, self._step)
        if hasattr(scheduler, "scale_model_input"):
            self._scale_of = scheduler.scale_model_input
            scheduler.scale_model_input = _seeming(self._scale_of, self._scale)

    def unguided(self) -> Unguided | None:
        """Returns the step that is made, if it is one without guidance.

        Raises:
            ValueError: If the call makes more steps than its scheduler lists.
        """
        if self._inside is None or self._unguided is not None:
            return self._unguided
        self._listed = self._listed or asks_at(self._scheduler).tolist()
        if self._n_steps == len(self._listed):
            raise ValueError(f"{self._who} makes more steps than its scheduler lists")
        if not self._inside(self._listed[self._n_steps]):
            self._unguided = Unguided(self._who, len(self._streams))
        return self._unguided

    def _scale(self, *args: Any, **kwargs: Any) -> Any:
        self._scaled = True
        return self._scale_of(*args, **kwargs)

    def _step(self, *args: Any, **kwargs: Any) -> Any:
        known = self._signature.parameters
        told = self._signature.bind(*args, **kwargs).arguments
        sample = told["sample"]
        if self._n_steps == 0:
            self.first_told = next(iter(told.values()))[: len(self._streams)]
        if self._n_steps == 0 and not self._is_own:  # what it ships with is what it is
            self._require_start(sample, told["timestep"])
        if self._listed:
            self._require_place(told["timestep"])
        self._unguided = None
        self._n_steps += 1
        if "generator" in known and told.get("generator") is None:
            kwargs["generator"] = self._streams * (len(sample) // len(self._streams))
        if "eta" in known and "eta" not in told:
            kwargs["eta"] = self._eta
        if "eta" in known and told.get("eta", 0.0) is None:
            name = type(self._scheduler).__name__
            raise ValueError(f"{self._who} hands {name} no eta, which it needs; take another one")
        return self._step_of(*args, **kwargs)

    def require_used(self) -> None:
        """Makes sure that the pipeline took its steps with this scheduler.

        Raises:
            ValueError: If it took none: another one was used.
        """
        if self._n_steps == 0:
            raise ValueError(f"{self._who} takes no step of its scheduler; it is not sampled")

    def _require_place(self, timestep: Any) -> None:
        """Sees that a step is made from where its noise level was taken to be."""
        listed, told = self._listed[self._n_steps], torch.as_tensor(timestep).flatten()
        if bool((told != listed).any()):
            raise ValueError(
                f"{self._who} makes a step from timestep {float(told[0]):g} where its scheduler "
                f"lists {listed:g}, so that no interval of guidance holds for it"
            )

    def _require_start(self, sample: Tensor, timestep: Any) -> None:
        """Sees at the first step that x_T was scaled as the scheduler asks, and the network's
        input too."""
        name = type(self._scheduler).__name__
        sigma = float(getattr(self._scheduler, "init_noise_sigma", 1.0))
        mine = self._x_T.to(sample.device).float() * sigma
        first = sample[: len(mine)].float()
        if first.shape == mine.shape and bool(((first - mine).abs() > CLOSE * (1 + sigma)).any()):
            raise ValueError(
                f"{self._who} starts {name} from noise of another size than it asks for (its "
                f"init_noise_sigma is {sigma:.4g}), which draws garbage; take a sampler whose "
                "noise has unit size, such as ddim or dpmpp_2m"
            )
        if self._scaled or not hasattr(self, "_scale_of"):
            return
        probe = copy.copy(self._scheduler)
        scaled = type(probe).scale_model_input(probe, sample, timestep)
        if not torch.equal(scaled, sample):
            raise ValueError(
                f"{self._who} never asks {name} to scale the network's input (scale_model_input), "
                "which draws garbage; take a sampler that scales nothing, such as ddim or dpmpp_2m"
            )
