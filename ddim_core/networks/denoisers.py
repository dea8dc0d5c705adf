"""Noise models: what the sampler calls, and the small U-Nets that this project trains."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.devices.graph import captured
from ddim_core.devices.placing import compiled, laid_out
from ddim_core.networks.batches import in_fixed_batches
from ddim_core.networks.building import seeded_weights
from ddim_core.networks.specs import ToyModelSpec

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

PIXELS_PER_BATCH = 8192
MAX_BATCH = 128

_tracing = Lock()


class UNetModel:
    """Makes a diffusers U-Net a model whose answer for an image never changes.

    On a CPU the network always runs on batches of one size, given by the image size alone (128 at
    8x8, 32 at 16x16, 8 at 32x32), so a prediction is bit-equal for every caller's batch size,
    place in the batch and number of threads. It runs there as a TorchScript trace with frozen
    weights: the same kernels and bits without Python between them, which is faster and lets
    threads run side by side. On a card the caller's batch is used as it is, so that callers keep to
    one size; on CUDA it runs as a graph of each size.

    Args:
        unet: A `UNet2DModel` or `UNet2DConditionModel`; it is put into evaluation mode and one
            layout: contiguous, or channels last on a card. Its weights must not change after the
            first call.
        on_card: Whether it runs as on a card, wherever it lies; anything off the CPU does.
        by_compiler: Whether a card runs what torch.compile makes of it.
    """

    def __init__(
        self,
        unet: diffusers.UNet2DModel | diffusers.UNet2DConditionModel,
        on_card: bool = False,
        by_compiler: bool = False,
    ) -> None:
        # One memory layout, whatever the network came in: kernels and their rounding depend on it.
        self.unet = unet.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)
        self._weight = next(self.unet.parameters())  # diffusers' own `dtype` takes milliseconds
        self._on_card = on_card or self._weight.device.type != "cpu"
        self._by_compiler = by_compiler
        if self._on_card:
            laid_out(self.unet)
        self._traces: dict[tuple[object, ...], Callable[..., Tensor]] = {}

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Predicts for images [n, c, h, w] at timesteps [n]; the result has the images' dtype and
        shape: of a network that predicts a variance besides, the first half of its channels.

        Args:
            x_t: Noisy images.
            t: Their timesteps, int64; or floating, where a scheduler asks between them. From the
                CPU they go to the images' device, which nothing waits for.
            labels: Their classes, int64 [n], for a class-conditional network; the embeddings of
                their prompts, [n, tokens, width], for one that is told of a text; else None.
        """
        said = self.whole(x_t, t, labels)
        return said if said.shape == x_t.shape else said[:, : x_t.shape[1]].contiguous()

    def whole(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """All that the network predicts, [n, c or 2 c, h, w]; see `__call__`."""
        x = x_t.to(self._weight.dtype)
        if labels is not None and labels.is_floating_point():
            labels = labels.to(x.dtype)
        t = t.to(x.device, non_blocking=True)
        inputs = (x, t) if labels is None else (x, t, labels)
        if self._on_card:
            with torch.inference_mode():
                laid = x.contiguous(memory_format=torch.channels_last)
                return self._traced(laid, *inputs[1:]).to(x_t.dtype)
        return in_fixed_batches(self._traced, network_batch(x_t.shape), *inputs).to(x_t.dtype)

    def _traced(self, *inputs: Tensor) -> Tensor:
        key = (*(tuple(x.shape) for x in inputs), *(x.dtype for x in inputs))
        if key not in self._traces:
            with _tracing:  # tracing takes a second: threads wait for the one that does it
                if key not in self._traces:
                    self._traces[key] = self._trace(inputs)
        return self._traces[key](*inputs)

    def _trace(self, inputs: tuple[Tensor, ...]) -> Callable[..., Tensor]:
        if self._on_card:
            forward = _AsModule(self.unet).eval()
            return captured(compiled(forward) if self._by_compiler else forward, *inputs)
        # TorchScript is kept by torch but marked as replaced by torch.compile, which needs a C++
        # compiler and half a minute; the pinned version has both.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trace = torch.jit.trace(_AsModule(self.unet).eval(), inputs, check_trace=False)
            return torch.jit.freeze(trace)


class _AsModule(torch.nn.Module):
    """The network with plain tensors in and out, as tracing needs it."""

    def __init__(self, unet: diffusers.UNet2DModel | diffusers.UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        return _predict(self.unet, x, t, labels)


def _predict(
    unet: diffusers.UNet2DModel | diffusers.UNet2DConditionModel,
    x: Tensor,
    t: Tensor,
    labels: Tensor | None = None,
) -> Tensor:
    if labels is not None and labels.is_floating_point():
        return unet(x, t, encoder_hidden_states=labels, return_dict=False)[0]
    return unet(x, t, class_labels=labels, return_dict=False)[0]


def network_batch(shape: Sequence[int]) -> int:
    """Returns how many images [..., h, w] a network runs on at once on a CPU."""
    return max(1, min(MAX_BATCH, PIXELS_PER_BATCH // (shape[-2] * shape[-1])))


def toy_unet(spec: ToyModelSpec, seed: int) -> diffusers.UNet2DModel:
    """Builds an untrained U-Net; its weights follow from the seed, the global stream is left alone.

    Args:
        spec: Shape of the network. With classes it takes labels 0..n_classes - 1, and n_classes
            for "no label".
        seed: Keys the initial weights.
    """
    levels = range(len(spec.widths))
    with seeded_weights(seed):
        return diffusers.UNet2DModel(
            sample_size=spec.resolution,
            num_class_embeds=spec.n_classes + 1 if spec.n_classes else None,
            in_channels=spec.channels,
            out_channels=spec.channels,
            block_out_channels=spec.widths,
            layers_per_block=spec.layers_per_block,
            norm_num_groups=spec.norm_groups,
            down_block_types=tuple(_block("Down", i in spec.attention) for i in levels),
            up_block_types=tuple(_block("Up", i in spec.attention) for i in reversed(levels)),
            add_attention=bool(spec.attention),
        )


def _block(direction: str, attention: bool) -> str:
    return f"{'Attn' if attention else ''}{direction}Block2D"
