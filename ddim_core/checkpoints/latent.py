"""The latent half of a pipeline: what turns latents into pixels, and prompts into embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.devices.placing import laid_out
from ddim_core.networks.batches import in_fixed_batches
from ddim_core.networks.checks import require_justified, require_picture_side
from ddim_core.networks.text_length import fit_length
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.tokenizer_files import require_plain_tokenizer
from ddim_core.safe_files.weight_names import DECODER_FOLDERS

if TYPE_CHECKING:
    import diffusers
    import transformers
else:
    diffusers = late("diffusers")
    transformers = late("transformers")

DECODERS = ("AutoencoderKL", "VQModel")  # of diffusers
PIXELS_PER_BATCH = 65536
PIXELS_ON_CARD = 2**21  # 8 images of 512 x 512
PROMPTS_KEPT = 256


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """Latents, and the decoder that makes pixels of them.

        image = decoder(z / scaling_factor)

    Source: Rombach et al. 2022 (arXiv:2112.10752), and `decode_latents` of diffusers' pipelines.

    Attributes:
        decoder: Diffusers' AutoencoderKL or VQModel.
        factor: Pixels per latent, along each side.
        channels: Of the images.
        on_card: Whether it decodes as on a card: more images at once, in the decoder's own number
            format.
    """

    decoder: Any
    factor: int
    channels: int
    on_card: bool = False

    def decode(self, latents: Tensor) -> Tensor:
        """Maps latents [n, c, h, w] to images [n, channels, factor h, factor w], about [-1, 1].

        Always in batches of one size, so that an image's bits do not depend on its neighbours.
        """
        pixels = latents.shape[-2] * latents.shape[-1] * self.factor**2
        at_once = PIXELS_ON_CARD if self.on_card else PIXELS_PER_BATCH
        size = max(1, min(64, at_once // pixels))
        dtype = next(self.decoder.parameters()).dtype if self.on_card else torch.float32
        return in_fixed_batches(self._decoded, size, latents.to(dtype))

    def _decoded(self, latents: Tensor) -> Tensor:
        scaled = latents / self.decoder.config["scaling_factor"]
        return self.decoder.decode(scaled, return_dict=False)[0]


class PromptEncoder:
    """Makes prompts the embeddings that a network attends to, one at a time; on a card all at once,
    where each has the place of its image.

    As Stable Diffusion 1.x and 2.x: padded or cut to the tokenizer's length, and the text
    encoder's last hidden state.

    Args:
        tokenizer, text_encoder: Of transformers.
        on_card: Whether it runs as on a card.
    """

    def __init__(self, tokenizer: Any, text_encoder: Any, on_card: bool = False) -> None:
        self.tokenizer, self.text_encoder = tokenizer, text_encoder
        self._on_card = on_card
        self._encoded = lru_cache(maxsize=PROMPTS_KEPT)(lambda prompt: self._states([prompt])[0])

    def __call__(self, prompts: list[str]) -> Tensor:
        """Returns float32 [n, tokens, width]; "" is what guidance compares with."""
        if self._on_card and len(prompts) > 1:
            return self._states(prompts)
        return torch.stack([self._encoded(prompt) for prompt in prompts])

    def _states(self, prompts: list[str]) -> Tensor:
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(
            prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        device = self.text_encoder.device
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if uses_mask else None
        with torch.inference_mode():
            hidden = self.text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]
        states: Tensor = hidden.float()
        return states


def load_latent_space(folder: Path, device: str, on_card: bool = False) -> LatentSpace | None:
    """Opens a pipeline's decoder; None for a pipeline of pixels.

    Raises:
        ValueError: If it is of a kind that is not known.
    """
    for name in DECODER_FOLDERS:
        path = folder / name
        if not path.is_dir():
            continue
        kind = diffusers.AutoencoderKL.load_config(path, local_files_only=True).get("_class_name")
        if kind not in DECODERS:
            raise ValueError(f"{name} is a {kind}; it must be one of {', '.join(DECODERS)}")
        decoder_class = getattr(diffusers, kind)
        require_justified(decoder_class, path, name)
        unet, own = (read_settings(p / "config.json") for p in (folder / "unet", path))
        require_picture_side(unet, own, name)
        decoder = decoder_class.from_pretrained(
            path, use_safetensors=True, local_files_only=True, torch_dtype=torch.float32
        )
        require_complete(decoder, name)
        config = decoder.config
        ready = decoder.eval().requires_grad_(False).to(device)
        return LatentSpace(
            laid_out(ready) if on_card else ready,
            factor=2 ** (len(config["block_out_channels"]) - 1),
            channels=int(config["out_channels"]),
            on_card=on_card,
        )
    return None


def load_prompt_encoder(folder: Path, device: str, on_card: bool = False) -> PromptEncoder:
    """Opens a pipeline's tokenizer and CLIP text encoder; no code of the folder is run.

    Raises:
        ValueError: If a weight is missing.
    """
    require_justified(transformers.CLIPTextModel, folder / "text_encoder", "text_encoder")
    require_plain_tokenizer(folder / "tokenizer")
    loaded: Any = transformers.CLIPTextModel.from_pretrained(
        folder / "text_encoder", use_safetensors=True, local_files_only=True,
        trust_remote_code=False, dtype=torch.float32, output_loading_info=True,
    )  # fmt: skip
    text_encoder, told = loaded
    missing = sorted(told["missing_keys"]) + sorted(map(str, told.get("mismatched_keys", [])))
    if missing:
        raise ValueError(f"text_encoder lacks {len(missing)} weights, first {missing[0]}")
    tokenizer = transformers.CLIPTokenizer.from_pretrained(
        folder / "tokenizer", local_files_only=True, trust_remote_code=False
    )
    longest = text_encoder.config.max_position_embeddings
    fit_length(tokenizer, longest)
    return PromptEncoder(tokenizer, text_encoder.eval().requires_grad_(False).to(device), on_card)


def require_complete(network: Any, name: str) -> None:
    """Makes sure that no weight was missing when a network was loaded.

    Raises:
        ValueError: If one was.
    """
    missing = [key for key, weight in network.named_parameters() if weight.is_meta]
    if missing:
        raise ValueError(
            f"{name} lacks {len(missing)} weights that its config.json asks for, the first "
            f"of them {missing[0]}"
        )
