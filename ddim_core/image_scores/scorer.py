"""A score of images at work: pictures and prompts in, one number an image out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.recorded import Recorded
from ddim_core.devices.names import is_card
from ddim_core.image_scores.parts import Part, Source

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH, BATCH_ON_CARD = 8, 64


@dataclass(frozen=True)
class ScoreRecord(Recorded):
    """What two scores of images have to agree in before they can be compared.

    Attributes:
        score: Its column.
        weights_digest: Of the folder of its files, as the store names it.
        formula: From the network's answer to the number, with its scale.
        pictures: From bytes to what the network sees.
        texts: From a prompt to tokens; empty where there is none.
        network: Whose implementation runs.
    """

    score: str
    weights_digest: str
    formula: str
    pictures: str
    texts: str
    network: str = "transformers, in float32"


@dataclass(frozen=True)
class ScoreKind:
    """A score of images: what it is made of, and how it is opened. A file of this room has one.

    Attributes:
        name: As a user names it, with hyphens.
        meaning: What it measures, for people.
        parts: The files that it needs.
        places: Where they usually are, by a short name; the first is taken where none is given.
        open: Opens it from a folder with these files.
        formula, pictures, texts: As of `ScoreRecord`.
    """

    name: str
    meaning: str
    parts: tuple[Part, ...]
    places: dict[str, tuple[Source, ...]]
    open: Callable[[Path], Scorer]
    formula: str
    pictures: str
    texts: str = ""

    @property
    def column(self) -> str:
        """The name of its column."""
        return self.name.replace("-", "_")

    @property
    def needs_prompts(self) -> bool:
        """Whether it judges a picture by its prompt."""
        return bool(self.texts)

    def record(self, weights_digest: str) -> ScoreRecord:
        """All that decides its numbers."""
        return ScoreRecord(self.column, weights_digest, self.formula, self.pictures, self.texts)


class Scorer:
    """A score's network with what stands before it.

    The network runs on batches of one size, padded: an image's number does not depend on its
    neighbours.

    Args:
        network: Its weights, which `judge` runs.
        size: Height and width of its pictures, in pixels.
        cut: From bytes [n, h, w, c] and the size to normalised pixels [n, 3, size, size].
        judge: From pixels and tokens to numbers [n].
        tokens: From prompts to tensors with a row a prompt; None where it needs no prompts.
    """

    def __init__(
        self,
        network: nn.Module,
        size: int,
        cut: Callable[[Tensor, int], Tensor],
        judge: Callable[..., Tensor],
        tokens: Callable[[Sequence[str]], tuple[Tensor, ...]] | None = None,
    ) -> None:
        self._network = network.eval().requires_grad_(False)
        self._size, self._cut, self._judge, self._tokens = size, cut, judge, tokens
        self._device, self._reading = "cpu", Lock()

    def to_card(self, device: str) -> None:
        """Puts the network on a card, for good; it then runs in larger batches."""
        self._network.to(device)
        self._device = device

    def __call__(
        self, images: NDArray[np.uint8], prompts: Sequence[str] | None = None
    ) -> NDArray[np.float32]:
        """Judges images.

        Args:
            images: uint8 [n, h, w, 1 or 3] of any one size.
            prompts: One an image; without meaning where the score needs none.

        Returns:
            float32 [n], one number an image.

        Raises:
            ValueError: If images are of another form, prompts are missing or not as many, or a
                number is not finite.
        """
        import torch

        from ddim_core.networks.batches import in_fixed_batches

        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(
                f"images are {images.dtype} of shape {images.shape}; they must be uint8 "
                "[n, h, w, 1 or 3]"
            )
        rows = torch.from_numpy(np.ascontiguousarray(images))
        tokens = self._read(prompts, len(images))
        size = BATCH_ON_CARD if is_card(self._device) else BATCH
        numbers = in_fixed_batches(self._batch, size, rows, *tokens).numpy()
        if not np.isfinite(numbers).all():
            wrong = int((~np.isfinite(numbers)).sum())
            raise ValueError(
                f"{wrong} of {len(numbers)} numbers are not finite; the network's weights must be"
            )
        return numbers

    def _read(self, prompts: Sequence[str] | None, n: int) -> tuple[Tensor, ...]:
        if self._tokens is None:
            return ()
        with self._reading:  # a tokenizer of Rust is one thread's at a time
            return self._tokens(_as_many(prompts, n))

    def _batch(self, images: Tensor, *tokens: Tensor) -> Tensor:
        seen = (self._cut(images, self._size), *tokens)
        return self._judge(*(rows.to(self._device) for rows in seen)).float().cpu()


def _as_many(prompts: Sequence[str] | None, n: int) -> Sequence[str]:
    if prompts is None or len(prompts) != n:
        there_are = "no" if prompts is None else str(len(prompts))
        raise ValueError(f"there are {there_are} prompts for {n} images; it must be one an image")
    return prompts
