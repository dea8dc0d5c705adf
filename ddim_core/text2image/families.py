"""The kinds of bases: what the folder of each holds, and what drawing and training must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_core.common.foreign import Config
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.understood import Classes, understood_index

T5_TOKENIZERS = ("T5TokenizerFast", "T5Tokenizer")
FLUX_LATENTS = 128  # along a side: FluxPipeline's own, which its network does not say
NO_LIMIT = 2**16


@dataclass(frozen=True)
class Family:
    """A kind of text-to-image pipeline.

    Attributes:
        pipeline: Its class in diffusers.
        network: The part that denoises, `unet` or `transformer`.
        network_kind: Its class in diffusers.
        clip: Its CLIP text encoders, which may carry a LoRA.
        t5: Its T5, which never does; empty without.
        t5_tokens: How many tokens T5 reads where a LoRA is trained, as in diffusers' scripts.
        flow: The network predicts the velocity of a flow; else it has a schedule of betas.
        guidance: The scale that its pictures are usually drawn with.
        tag: What the hub calls its kind.
        cell: Latents along a side of what the network's deepest level takes as one.
        latents: Along a side of the pictures that the network was trained on.
        most_latents: Along a side, at most.
        channels: Of one picture's latents.
    """

    pipeline: str
    network: str
    network_kind: str
    clip: tuple[str, ...]
    cell: Callable[[Config], int]
    latents: Callable[[Config], int]
    channels: Callable[[Config], int]
    most_latents: Callable[[Config], int] = lambda config: NO_LIMIT
    t5: str = ""
    t5_tokens: int = 0
    flow: bool = False
    guidance: float = 7.5
    tag: str = "stable-diffusion"

    @property
    def encoders(self) -> tuple[str, ...]:
        """All text encoders; CLIP's come first."""
        return (*self.clip, self.t5) if self.t5 else self.clip

    @property
    def parts(self) -> tuple[str, ...]:
        """All that a base's folder must hold."""
        tokenizers = map(tokenizer_of, self.encoders)
        return (self.network, "vae", *self.encoders, *tokenizers, "scheduler")

    @property
    def classes(self) -> Classes:
        """The classes of those parts that Stable Diffusion 1.x to XL have otherwise, or not."""
        of_t5 = {
            self.t5: ("transformers", ("T5EncoderModel",)),
            tokenizer_of(self.t5): ("transformers", T5_TOKENIZERS),
        }
        network = {self.network: ("diffusers", (self.network_kind,))}
        return network | of_t5 if self.t5 else network

    def index(self, folder: Path) -> Config:
        """Returns the entries of a base's model_index.json that are known.

        Raises:
            ValueError: If a part is of a class that is not known.
        """
        return understood_index(read_settings(folder / "model_index.json"), self.classes)

    def config(self, folder: Path) -> Config:
        """Returns the network's configuration in a base's folder."""
        return read_settings(folder / self.network / "config.json")

    def packed(self, pipeline: Any, latents: Any) -> Any:
        """Returns latents [n, c, h, w] as the pipeline's call takes them: Flux packs 2 x 2 of them
        into one, [n, h w / 4, 4 c]."""
        return latents


@dataclass(frozen=True)
class _Packing(Family):
    def packed(self, pipeline: Any, latents: Any) -> Any:
        return pipeline._pack_latents(latents, *latents.shape)


def tokenizer_of(encoder: str) -> str:
    """Returns the name of a text encoder's tokenizer."""
    return encoder.replace("text_encoder", "tokenizer")


def _side(config: Config) -> int:
    size = config["sample_size"]
    return int(size if isinstance(size, int) else size[0])


def _halvings(config: Config) -> int:
    return 2 ** (len(config["block_out_channels"]) - 1)


SD = Family(
    "StableDiffusionPipeline", "unet", "UNet2DConditionModel", ("text_encoder",),
    cell=_halvings, latents=_side, channels=lambda config: int(config["in_channels"]),
)  # fmt: skip
XL = Family(
    "StableDiffusionXLPipeline", "unet", "UNet2DConditionModel",
    ("text_encoder", "text_encoder_2"),
    cell=_halvings, latents=_side, channels=lambda config: int(config["in_channels"]),
    tag="stable-diffusion-xl",
)  # fmt: skip
SD3 = Family(
    "StableDiffusion3Pipeline", "transformer", "SD3Transformer2DModel",
    ("text_encoder", "text_encoder_2"),
    cell=lambda config: int(config["patch_size"]),
    latents=_side,
    channels=lambda config: int(config["in_channels"]),
    most_latents=lambda config: int(config["pos_embed_max_size"] * config["patch_size"]),
    t5="text_encoder_3", t5_tokens=77, flow=True, guidance=7.0, tag="sd3",
)  # fmt: skip
FLUX = _Packing(
    "FluxPipeline", "transformer", "FluxTransformer2DModel", ("text_encoder",),
    cell=lambda config: 2,
    latents=lambda config: FLUX_LATENTS,
    channels=lambda config: int(config["in_channels"]) // 4,
    t5="text_encoder_2", t5_tokens=512, flow=True, guidance=3.5, tag="flux",
)  # fmt: skip
FAMILIES = {family.pipeline: family for family in (SD, XL, SD3, FLUX)}


def family_of(folder: Path) -> Family:
    """Returns the family of a base's folder.

    Raises:
        ValueError: If it is of none of them.
    """
    told = read_settings(folder / "model_index.json")
    kind = told.get("_class_name")
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = understood_index(told).get("_class_name")
        raise ValueError(
            f"{folder.name!r} is a {known}; a base must be one of {', '.join(FAMILIES)}"
        )
    return FAMILIES[kind]


def family_of_pipeline(pipeline: Any) -> Family:
    """Returns the family of an opened pipeline."""
    return FAMILIES[type(pipeline).__name__]


def family_of_networks(network: Any, n_clip: int) -> Family:
    """Returns the family of a network that denoises, beside so many CLIP text encoders."""
    name = type(network).__name__
    return next(f for f in FAMILIES.values() if f.network_kind == name and len(f.clip) == n_clip)


def part_of(network: Any) -> str:
    """Returns the name in a pipeline of a network that denoises."""
    name = type(network).__name__
    return next(f.network for f in FAMILIES.values() if f.network_kind == name)


def network_of(pipeline: Any) -> Any:
    """Returns the network of a pipeline that denoises."""
    return getattr(pipeline, family_of_pipeline(pipeline).network)


def clip_of(pipeline: Any) -> list[Any]:
    """Returns the CLIP text encoders of a pipeline, which may carry a LoRA."""
    return [getattr(pipeline, name) for name in family_of_pipeline(pipeline).clip]
