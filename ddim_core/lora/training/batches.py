"""What a LoRA sees at each step: images, captions, timesteps, noise, all from (seed, step)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.lora.specs import LoraSpec

if TYPE_CHECKING:
    from diffusers import training_utils
else:
    training_utils = late("diffusers.training_utils")

EMPTY_PROMPT = 0  # index of the empty prompt among the embedded ones
DRAW_STREAM, ORDER_STREAM, CLASS_STREAM, DROPOUT_STREAM = 0, 1, 2, 3


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """Encoded images with their captions.

    Attributes:
        moments: One tensor an image, [variants, 2 c, h, w]: mean and log variance of its latents.
        sizes: One tensor an image, [variants, 6]: what SDXL is told of its cut.
        prompts: Index of each image's caption among the embedded prompts.
        scaling_factor: Brings latents to about unit variance, after
        shift_factor: has been taken from them; 0 but of SD3 and Flux.
        repeats: How often each is seen beside the others; empty is once.
    """

    moments: list[Tensor]
    sizes: list[Tensor]
    prompts: list[int]
    scaling_factor: float
    shift_factor: float = 0.0
    repeats: Sequence[int] = ()

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, NDArray[np.float32]], captions: Sequence[str],
        prompts: Sequence[str], repeats: Sequence[int] = (),
    ) -> TrainingImages:  # fmt: skip
        """Joins what `encode_latents` returns with the images' captions.

        Raises:
            ValueError: If their numbers differ, or a caption was not embedded.
        """
        names = sorted(name for name in arrays if name.startswith("moments/"))
        if len(names) != len(captions):
            raise ValueError(f"there are {len(names)} encoded images and {len(captions)} captions")
        missing = next((text for text in captions if text not in prompts), None)
        if missing is not None:
            raise ValueError(f"the caption {missing!r} was not embedded")
        return cls(
            [torch.from_numpy(arrays[name]) for name in names],
            [torch.from_numpy(arrays[name.replace("moments", "sizes")]) for name in names],
            [list(prompts).index(text) for text in captions],
            float(arrays["scaling_factor"][0]),
            float(arrays["shift_factor"][0]),
            repeats,
        )

    def __len__(self) -> int:
        return len(self.moments)

    @property
    def visits(self) -> list[int]:
        """The images that one time through sees, in their order."""
        if not self.repeats:
            return list(range(len(self)))
        return [row for row, n in enumerate(self.repeats) for _ in range(n)]


@dataclass(frozen=True, eq=False)
class Group:
    """Images of one size in one forward; n of them, latents of shape [c, h, w].

    Attributes:
        moments: [n, 2 c, h, w].
        sizes: [n, 6].
        prompts: int64 [n], indices of embedded prompts.
        weights: float32 [n], each image's weight in the loss; over a forward they sum to 1 (and
            `prior_weight` where there are class images).
        timesteps: int64 [n]; of a flow, places in its schedule, which begins with noise.
        latent_noise: [n, c, h, w], what makes a sample of the moments.
        noise: [n, c, h, w], what is added to the latents.
        offset: [n, c, 1, 1], the noise that is constant over a channel.
    """

    moments: Tensor
    sizes: Tensor
    prompts: Tensor
    weights: Tensor
    timesteps: Tensor
    latent_noise: Tensor
    noise: Tensor
    offset: Tensor

    def share(self, rank: int, n_processes: int) -> Group:
        """Returns the rows of one process among several; where it has none, one of no weight,
        since every process must take part in each backward."""
        if n_processes == 1:
            return self
        rows = slice(rank, None, n_processes) if rank < len(self.timesteps) else slice(0, 1)
        mine = {field.name: getattr(self, field.name)[rows] for field in fields(self)}
        if rank >= len(self.timesteps):
            mine["weights"] = torch.zeros(1)
        return Group(**mine)


# The groups of the k-th forward of a training, k = 0, 1, ...
Draws = Callable[[int], list[Group]]


def draws(
    spec: LoraSpec, images: TrainingImages, class_images: TrainingImages | None, n_train: int
) -> Draws:
    """Returns the forwards of a training: the k-th is a function of (seed, k) alone.

    The images are gone through again and again, each time in a new order, in batches of one size.
    With class images each forward has as many of them as of the others.
    """
    batches = cache(lambda epoch: _epoch(images, spec.batch_size, spec.seed, epoch))
    n_batches = len(batches(0))

    def draw(index: int) -> list[Group]:
        rows = batches(index // n_batches)[index % n_batches]
        parts = [(images, row, 1.0 / len(rows)) for row in rows]
        if class_images is not None:
            chosen = _class_rows(spec, class_images.visits, index)
            parts += [(class_images, row, spec.prior_weight / len(chosen)) for row in chosen]
        return _grouped(spec, parts, index, n_train)

    return draw


def stream(seed: int, index: int, kind: int) -> torch.Generator:
    """Returns the random stream of one use, keyed by (seed, index, kind)."""
    return torch.Generator().manual_seed(stream_seed(seed, index, kind))


def stream_seed(seed: int, index: int, kind: int) -> int:
    key = np.random.SeedSequence([seed, index, kind]).generate_state(1, np.uint64)[0]
    return int(key >> np.uint64(1))


def _epoch(images: TrainingImages, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    generator = stream(seed, epoch, ORDER_STREAM)
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    visits = images.visits
    for visit in torch.randperm(len(visits), generator=generator).tolist():
        by_size[tuple(images.moments[visits[visit]].shape[1:])].append(visits[visit])
    found = [
        rows[start : start + batch_size]
        for _, rows in sorted(by_size.items())
        for start in range(0, len(rows), batch_size)
    ]
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]


def _class_rows(spec: LoraSpec, visits: list[int], index: int) -> list[int]:
    rows, n = [], len(visits)
    for place in range(index * spec.batch_size, (index + 1) * spec.batch_size):
        order = torch.randperm(n, generator=stream(spec.seed, place // n, CLASS_STREAM))
        rows.append(visits[int(order[place % n])])
    return rows


def _timesteps(spec: LoraSpec, n: int, n_train: int, generator: torch.Generator) -> Tensor:
    """Places in a schedule: uniform, but for a flow whose weighting draws them otherwise."""
    if spec.weighting not in ("logit_normal", "mode"):
        return torch.randint(0, n_train, (n,), generator=generator)
    u = training_utils.compute_density_for_timestep_sampling(
        spec.weighting, n, spec.logit_mean, spec.logit_std, spec.mode_scale, generator=generator
    )
    return (u * n_train).long().clamp(0, n_train - 1)  # u may be 1


def _grouped(
    spec: LoraSpec, parts: list[tuple[TrainingImages, int, float]], index: int, n_train: int
) -> list[Group]:
    generator = stream(spec.seed, index, DRAW_STREAM)
    chosen = []
    for images, row, weight in parts:
        variant = int(torch.randint(len(images.moments[row]), (), generator=generator))
        dropped = float(torch.rand((), generator=generator)) < spec.caption_dropout
        prompt = EMPTY_PROMPT if dropped else images.prompts[row]
        chosen.append((images.moments[row][variant], images.sizes[row][variant], prompt, weight))
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for place, (moments, *_) in enumerate(chosen):
        by_size[tuple(moments.shape)].append(place)
    groups = []
    for (channels, height, width), places in by_size.items():
        n, shape = len(places), (len(places), channels // 2, height, width)
        groups.append(
            Group(
                moments=torch.stack([chosen[i][0] for i in places]),
                sizes=torch.stack([chosen[i][1] for i in places]),
                prompts=torch.tensor([chosen[i][2] for i in places]),
                weights=torch.tensor([chosen[i][3] for i in places]),
                timesteps=_timesteps(spec, n, n_train, generator),
                latent_noise=torch.randn(shape, generator=generator),
                noise=torch.randn(shape, generator=generator),
                offset=torch.randn((*shape[:2], 1, 1), generator=generator),
            )
        )
    return groups
