"""A CLIP from a folder in transformers' layout or in open_clip's, with its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn import functional as F

from ddim_core.common.late import late
from ddim_core.common.plain_files import is_there, read_json
from ddim_core.features.model_folder import WEIGHTS, model_folder, read_state
from ddim_core.features.transformers_network import config_of, network_of
from ddim_core.image_scores.networks.open_clip import clip_of
from ddim_core.image_scores.networks.tokens import tokenizer_of
from ddim_core.safe_files.tokenizer_files import require_plain_tokenizer

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)  # fmt: skip


def open_clip(folder: Path, what: str) -> Clip:
    """Opens a CLIP.

    Args:
        folder: With `config.json` and `model.safetensors` or `pytorch_model.bin`, as transformers
            writes them; or a file in open_clip's layout, perhaps with `open_clip_config.json`.
        what: The score, for messages.

    Raises:
        ValueError: If it holds no CLIP.
    """
    if any(is_there(folder / name) for name in WEIGHTS):
        model_folder(str(folder), what)
        kind = transformers.CLIPModel
        return Clip(network_of(kind, config_of(folder, what, "clip"), folder, what))
    weights = next((folder / name for name in OPEN_CLIP_WEIGHTS if is_there(folder / name)), None)
    if weights is None:
        raise ValueError(f"{folder.name} holds no weights of {what}")
    told = read_json(folder / OPEN_CLIP_CONFIG) if is_there(folder / OPEN_CLIP_CONFIG) else None
    return Clip(clip_of(read_state(weights, what), told, what))


class Clip(nn.Module):
    """A CLIP whose vectors of pictures and of texts have length 1.

    Source: Radford et al. 2021 (arXiv:2103.00020).

    Args:
        network: A `CLIPModel` of transformers.
    """

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        config = self.network.config
        self.size, self.length = (
            int(config.vision_config.image_size), int(config.text_config.max_position_embeddings),
        )  # fmt: skip
        self.vocabulary = int(config.text_config.vocab_size)

    def pictures(self, pixels: Tensor) -> Tensor:
        """Maps normalised pixels float32 [n, 3, size, size] to unit vectors [n, d]."""
        pooled = self.network.vision_model(pixel_values=pixels).pooler_output
        return F.normalize(self.network.visual_projection(pooled), dim=-1)

    def texts(self, tokens: Tensor) -> Tensor:
        """Maps tokens int64 [n, length] to unit vectors [n, d]."""
        pooled = self.network.text_model(input_ids=tokens).pooler_output
        return F.normalize(self.network.text_projection(pooled), dim=-1)

    def cosines(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """Returns the cosine of each picture and its text, [n] in [-1, 1]."""
        return (self.pictures(pixels) * self.texts(tokens)).sum(dim=-1)

    @property
    def scale(self) -> Tensor:
        """The factor of its logits, exp(logit_scale)."""
        return self.network.logit_scale.exp()


class ClipTokens:
    """CLIP's tokenizer: what is longer than the network's text is cut, and its end is kept.

    What pads a shorter text plays no part: attention looks back alone.

    Args:
        folder: With `vocab.json` and `merges.txt`, or `tokenizer.json`.
        clip: The network that reads them.
        what: The score, for messages.

    Raises:
        ValueError: If there is no such tokenizer, or it has tokens that the network does not know.
    """

    def __init__(self, folder: Path, clip: Clip, what: str) -> None:
        self._tokenizer = tokenizer_of(
            transformers.CLIPTokenizer, require_plain_tokenizer, folder, clip.vocabulary, what,
            "the one that belongs to it",
        )  # fmt: skip
        self._length = clip.length

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """Maps texts to tokens int64 [n, length]."""
        told = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=self._length,
            return_tensors="pt",
        )  # fmt: skip
        return (told.input_ids,)
