"""Short and long runs from common noise, and how far apart they end, image by image."""

from __future__ import annotations

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.common.foreign import Keywords
from ddim_core.diffusion.noise import ImageNoise
from ddim_core.diffusion.sampling import Denoiser
from ddim_core.pipelines.arguments import Conditions, Setting, placed, rows_for
from ddim_core.pipelines.drawing import Stage, memory_words
from ddim_core.pipelines.fitting import require_conditions, require_setting
from ddim_core.pipelines.opening import DTYPES, OpenedPipeline
from ddim_core.samplers.loop import draw
from ddim_core.samplers.name import SamplerName
from ddim_core.samplers.scheduler import scheduler_for, set_steps

TUNING, FRESH = 2**62, 3 * 2**61
"""Indices of the first image that settings are tuned on, and of the first that they are judged on:
no cell of a grid has any so large, so that no image that is scored was tuned on."""
KEPT_BYTES = 2**28  # of answers that are remembered, over all chunks


class Runs(Protocol):
    """Runs of one model from the noise of chunks of images."""

    @property
    def calls(self) -> int:
        """Images that the network was asked about so far; what was remembered is not counted."""
        ...

    def ends(self, sampler: SamplerName, steps: int, chunk: int) -> Tensor:
        """Returns where the images of a chunk end, float32 [n, ...]."""
        ...

    def ignores_time(self) -> bool:
        """Tells whether the network answered alike at another timestep than it was last asked at;
        call `ends` first."""
        ...


class Remembered:
    """A network that is asked once about what it was asked before.

    Candidates of a search often begin alike: the same x at the same timestep has the same answer,
    whichever scheduler asks. The oldest answers are forgotten where they take too much memory.

    Args:
        network: Anything that is called with tensors, the noisy images [n, ...] first.
        asked: Is told n before each call that is made.
        most: Bytes of answers that are kept.
    """

    def __init__(
        self, network: Callable[..., Any], asked: Callable[[int], None], most: int = KEPT_BYTES
    ) -> None:
        self._network, self._asked, self._most = network, asked, most
        self._kept: OrderedDict[bytes, Any] = OrderedDict()
        self._bytes = 0
        self._latest: tuple[tuple[Any, ...], Keywords] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._latest = args, kwargs
        key = digest_of((args, kwargs))
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            self._asked(len(args[0] if args else next(iter(kwargs.values()))))
            answer = self._network(*args, **kwargs)
            self._kept[key] = answer
            self._bytes += _bytes_of(answer)
            while self._bytes > self._most and len(self._kept) > 1:
                self._bytes -= _bytes_of(self._kept.popitem(last=False)[1])
        return copy.deepcopy(self._kept[key])  # whoever asked may change it in place

    def ignores_time(self) -> bool:
        """Tells whether the network's answer stays the same, to the bit, at half the timestep and
        at twice the timestep that it was last asked at."""
        if self._latest is None:
            return False
        args, kwargs = self._latest

        def at(share: float) -> bytes:
            if "timestep" in kwargs:
                told = kwargs | {"timestep": _scaled(kwargs["timestep"], share)}
                return digest_of(self._network(*args, **told))
            return digest_of(self._network(args[0], _scaled(args[1], share), *args[2:], **kwargs))

        with torch.inference_mode():
            return at(1.0) == at(0.5) == at(2.0)


class LoopRuns:
    """Runs of a bare network by our loop over a scheduler of diffusers.

    Args:
        model_for: The network as the images of these indices need it: told their classes or
            prompts, and guided.
        own: The checkpoint's scheduler_config.json, with its class.
        shape: Of one image, as the network has it.
        seed: Of the noise.
        first: Index of the first image: `TUNING` or `FRESH`.
        n_images: How many there are.
        chunk: Images of a network call: `network_batch` of their shape.
        device: Where they are drawn.
    """

    def __init__(
        self,
        model_for: Callable[[Sequence[int]], Denoiser],
        own: Any,
        shape: Sequence[int],
        seed: int,
        first: int,
        n_images: int,
        chunk: int,
        device: str = "cpu",
    ) -> None:
        self.calls = 0
        self._own = own
        self._fresh: dict[SamplerName, Any] = {}  # schedulers, whatever list they are given
        self._chunks = []
        chunks = chunks_of(n_images, chunk)
        for places in chunks:
            indices = [first + i for i in places]
            model = Remembered(model_for(indices), self._count, KEPT_BYTES // len(chunks))
            self._chunks.append((model, ImageNoise(seed, indices, shape, device).x_T()))

    def _count(self, n_images: int) -> None:
        self.calls += n_images

    def ends(self, sampler: SamplerName, steps: int, chunk: int) -> Tensor:
        """Returns where the images of a chunk end, float32 [n, ...]."""
        model, x_T = self._chunks[chunk]
        scheduler = self._scheduler(sampler)
        set_steps(scheduler, sampler, steps)
        with torch.inference_mode():
            return draw(model, scheduler, x_T).x.float().cpu()

    def _scheduler(self, sampler: SamplerName) -> Any:
        """A fresh one; making it takes longer than a step of a small network."""
        listed = (bool(sampler.timesteps), bool(sampler.own_sigmas))
        key = replace(sampler, timesteps=listed[:1], own_sigmas=listed[1:])
        if key not in self._fresh:
            self._fresh[key] = scheduler_for(sampler, self._own)
        return copy.deepcopy(self._fresh[key])

    def ignores_time(self) -> bool:
        """Tells whether the network answers alike at all timesteps."""
        return self._chunks[0][0].ignores_time()


class PipelineRuns:
    """Runs of a pipeline by its own call, to its images.

    Args:
        opened: The pipeline.
        conditions_for: What the images of these indices are drawn for, a row an image.
        guidance: Of its call.
        seed, first, n_images, chunk: As of `LoopRuns`.
        interval: Of the noise levels at which there is guidance; None: at all.
    """

    def __init__(
        self,
        opened: OpenedPipeline,
        conditions_for: Callable[[Sequence[int]], Conditions],
        guidance: float,
        seed: int,
        first: int,
        n_images: int,
        chunk: int,
        interval: tuple[float, float] | None = None,
    ) -> None:
        self.calls = 0
        self._opened, self._guidance, self._interval, self._seed = opened, guidance, interval, seed
        self._n_now = 0
        self._kept: dict[str, Remembered] = {}
        self._indices = [[first + i for i in places] for places in chunks_of(n_images, chunk)]
        self._conditions = []
        for indices in self._indices:
            conditions = conditions_for(indices)
            require_conditions(opened, conditions, guidance, len(indices))
            here = placed(conditions, opened.device, DTYPES[opened.dtype])
            self._conditions.append(rows_for(here, list(range(len(indices)))))

    def ends(self, sampler: SamplerName, steps: int, chunk: int) -> Tensor:
        """Returns the images of a chunk, float32 [n, ...] in [-1, 1]."""
        setting = Setting(sampler, steps, self._guidance, 0.0, self._seed, self._interval)
        require_setting(self._opened, setting)
        self._n_now = len(self._indices[chunk])
        stage = Stage(self._opened, setting, self._remembered)
        with torch.inference_mode(), memory_words(len(self._indices[chunk])):
            ends = stage.batch(self._indices[chunk], self._conditions[chunk]).cpu()
            return ends * 2.0 - 1.0

    def _remembered(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        if name not in self._kept:
            self._kept[name] = Remembered(forward, self._count)
        return self._kept[name]

    def _count(self, n_rows: int) -> None:
        self.calls += min(n_rows, self._n_now)  # guidance may double the rows, not the images

    def ignores_time(self) -> bool:
        """Tells whether the network answers alike at all timesteps."""
        return all(network.ignores_time() for network in self._kept.values())


class Seen:
    """Runs whose ends are looked at, as by a feature extractor: distances lie between what is seen.

    Args:
        runs: To images or latents.
        see: What is seen of their ends, [n, ...].
    """

    def __init__(self, runs: Runs, see: Callable[[Tensor], Tensor]) -> None:
        self._runs, self._see = runs, see

    @property
    def calls(self) -> int:
        """Images that the network was asked about so far."""
        return self._runs.calls

    def ends(self, sampler: SamplerName, steps: int, chunk: int) -> Tensor:
        """Returns what is seen where the images of a chunk end, float32 [n, ...]."""
        return self._see(self._runs.ends(sampler, steps, chunk))

    def ignores_time(self) -> bool:
        """Tells whether the network answers alike at all timesteps."""
        return self._runs.ignores_time()


def chunks_of(n_images: int, size: int) -> list[range]:
    """Returns the places of images, so many at a time: what the network is asked about at once, for
    fewer take hardly less time."""
    return [range(i, min(i + size, n_images)) for i in range(0, n_images, size)]


def first_of(chunks: Sequence[range], n_images: int) -> list[range]:
    """Returns the first chunks, as many as hold so many images; all, where these are fewer."""
    return [chunk for chunk in chunks if chunk.start < n_images]


def distances(a: Tensor, b: Tensor) -> NDArray[np.float64]:
    """Returns how far apart two batches [n, ...] lie, image by image: the Euclidean distance over
    the square root of the number of coordinates (root mean square)."""
    apart = (a.double() - b.double()).flatten(1)
    return np.asarray(apart.norm(dim=1) / apart.shape[1] ** 0.5)


def digest_of(asked: Any) -> bytes:
    """Returns a digest of tensors, and of lists, tuples and dicts of them and of plain values."""
    seen = hashlib.blake2b(digest_size=16)
    _digest(asked, seen)
    return seen.digest()


def _digest(part: Any, seen: Any) -> None:
    if isinstance(part, Tensor):
        seen.update(f"{part.dtype}{tuple(part.shape)}".encode())
        plain = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        seen.update(plain.numpy().data)
    elif isinstance(part, dict):
        for name in sorted(part):
            seen.update(str(name).encode())
            _digest(part[name], seen)
    elif isinstance(part, (list, tuple)):
        seen.update(f"{len(part)}".encode())
        for one in part:
            _digest(one, seen)
    else:
        seen.update(repr(part).encode())


def _scaled(t: Any, share: float) -> Any:
    """A timestep, or some, at so much of itself; 0 is moved as well."""
    if isinstance(t, Tensor):
        moved = (t.double() + 1.0) * share
        return (moved if t.is_floating_point() else moved.round()).to(t.dtype)
    return type(t)((t + 1) * share)


def _bytes_of(answer: Any) -> int:
    if isinstance(answer, Tensor):
        return answer.nbytes
    parts = tuple(answer.values()) if isinstance(answer, dict) else answer
    return sum(map(_bytes_of, parts)) if isinstance(parts, (list, tuple)) else 0
