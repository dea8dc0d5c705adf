"""ImageReward's network: BLIP's picture and text transformers, by transformers, and linear layers.

Source: Xu et al. 2023 (arXiv:2304.05977); Li et al. 2022 (arXiv:2201.12086).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.image_scores.networks.linear import linear_layers
from ddim_core.image_scores.networks.tokens import tokenizer_of
from ddim_core.networks.building import LOADING
from ddim_core.networks.checks import require_sane
from ddim_core.safe_files.tokenizer_files import require_harmless_tokenizer

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

LENGTH = 35  # tokens of a prompt, as ImageReward cuts and pads it
HEAD = 64  # numbers a head of BLIP's ViT has
VISION_EPS = 1e-6  # of BLIP's layer norms of pictures
PICTURES, TEXTS, MLP = "blip.visual_encoder.", "blip.text_encoder.", "mlp."
IN_VISION = (
    ("cls_token", "embeddings.class_embedding"), ("pos_embed", "embeddings.position_embedding"),
    ("patch_embed.proj", "embeddings.patch_embedding"), ("blocks.", "encoder.layers."),
    ("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("attn.qkv", "self_attn.qkv"),
    ("attn.proj", "self_attn.projection"),
)  # fmt: skip
LEFT_OUT = "embeddings.position_ids"  # 0, 1, 2, ...


class RewardNetwork(nn.Module):
    """Maps pictures and prompts to one number each: the first of the text's vectors, which has
    looked at the picture, through linear layers.

    Args:
        state: Of `ImageReward.pt`.
        told: The content of its `med_config.json`.
        what: The score, for messages.

    Raises:
        ValueError: If they are of something else.
    """

    def __init__(self, state: Mapping[str, Tensor], told: Config, what: str) -> None:
        super().__init__()
        require_sane(told, "med_config.json")
        pictures = {_vision_name(k): v for k, v in _below(state, PICTURES).items()}
        texts = {k: v for k, v in _below(state, TEXTS).items() if k != LEFT_OUT}
        try:
            width, _, _, patch = pictures["embeddings.patch_embedding.weight"].shape
            places = pictures["embeddings.position_embedding"].shape[1]
            hidden = len(pictures["encoder.layers.0.mlp.fc1.weight"])
        except KeyError as error:
            raise ValueError(f"the weights of {what} lack {error} of its BLIP") from error
        self.size = patch * round((places - 1) ** 0.5)
        layers = {name.split(".")[2] for name in pictures if name.startswith("encoder.layers.")}
        vision = transformers.BlipVisionConfig(
            hidden_size=width, intermediate_size=hidden, num_hidden_layers=len(layers),
            num_attention_heads=width // HEAD, image_size=self.size, patch_size=patch,
            hidden_act="gelu", layer_norm_eps=VISION_EPS,
        )  # fmt: skip
        names = (
            "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps",
            "pad_token_id",
        )  # fmt: skip
        text = transformers.BlipTextConfig(
            **{name: told[name] for name in names if name in told},
            # With it layers look at the picture; whether they look ahead is said at each call.
            is_decoder=True, encoder_hidden_size=width, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        self.vocabulary = int(text.vocab_size)
        with LOADING:
            self.vision = transformers.BlipVisionModel(vision)
            self.text = transformers.BlipTextModel(text, add_pooling_layer=False)
        _load(self.vision, pictures, what)
        _load(self.text, texts, what)
        self.mlp = linear_layers(_below(state, MLP), what, int(text.hidden_size))

    def forward(self, pixels: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Maps pixels float32 [n, 3, size, size], and tokens and their mask int64 [n, 35], to
        rewards [n], not yet standardised."""
        seen = self.vision(pixel_values=pixels).last_hidden_state
        told = self.text(
            input_ids=tokens, attention_mask=mask, encoder_hidden_states=seen, is_decoder=False
        )
        return self.mlp(told.last_hidden_state[:, 0]).squeeze(-1)


class BertTokens:
    """The tokenizer of `bert-base-uncased`, cut and padded to 35 tokens.

    ImageReward's own has two tokens more, which no prompt is told by.

    Args:
        folder: With `vocab.txt` or `tokenizer.json`.
        vocabulary: Tokens that the network knows.
        what: The score, for messages.

    Raises:
        ValueError: If there is no such tokenizer, or it has tokens that the network does not know.
    """

    def __init__(self, folder: Path, vocabulary: int, what: str) -> None:
        self._tokenizer = tokenizer_of(
            transformers.BertTokenizer, require_harmless_tokenizer, folder, vocabulary, what,
            "bert-base-uncased's",
        )  # fmt: skip

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, ...]:
        """Maps texts to tokens and their mask, int64 [n, 35] each."""
        told = self._tokenizer(
            list(texts), padding="max_length", truncation=True, max_length=LENGTH,
            return_tensors="pt",
        )  # fmt: skip
        return told.input_ids, told.attention_mask


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _vision_name(name: str) -> str:
    """A name of BLIP's picture transformer as transformers has it."""
    for theirs, ours in IN_VISION:
        name = name.replace(theirs, ours)
    return name if name.startswith(("embeddings.", "encoder.")) else f"post_layer{name}"


def _load(network: Any, state: Mapping[str, Tensor], what: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"the weights of {what} do not fit: {str(error).splitlines()[-1].strip()}"
        ) from error
