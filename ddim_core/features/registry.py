"""Feature extractors by name: the resize is part of it.

A network is imported when it is opened, so that a wrong name is refused without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ddim_core.common.checks import require_choice
from ddim_core.common.plain_files import is_there
from ddim_core.diffusion.specs import RESIZES
from ddim_core.features.model_folder import local_inception_weights, model_folder

if TYPE_CHECKING:
    from ddim_core.features.network import NetworkFeatures

CLIP_HUB_ID = "openai/clip-vit-base-patch32"
DINOV2_HUB_ID = "facebook/dinov2-base"
THREE = ("tf1", "clean", "torch")  # of the first protocols, which a matrix shows side by side


@dataclass(frozen=True)
class Pretrained:
    """A pretrained extractor: how it is opened, its resizes, and its weights' usual place.

    Attributes:
        open: Takes its whole name, the weights' place (a file, a folder or a hub id) and the
            resize.
        resizes: Those that it has, the usual one first.
        hub_id: Where its weights are when none are given; None if torch-fidelity knows, or nobody.
        folder: Whether its weights are a folder with its configuration rather than a file.
    """

    open: Callable[[str, str, str], NetworkFeatures]
    resizes: tuple[str, ...]
    hub_id: str | None = None
    folder: bool = False


def _inception(_name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.inception import InceptionFeatures

    return InceptionFeatures(place, resize)


def _spatial(_name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.inception import SpatialInceptionFeatures

    return SpatialInceptionFeatures(place, resize)


def _afhq(_name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.inception import AfhqInceptionFeatures

    return AfhqInceptionFeatures(place, resize)


def _clip(name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.clip_dino import ClipFeatures

    return ClipFeatures(place, resize, name)


def _dinov2(name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.clip_dino import Dinov2Features

    return Dinov2Features(place, resize, name)


def _dinov2_by_its_authors(name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.clip_dino import Dinov2Features

    return Dinov2Features(place, resize, name, offset=0.1)


def _timm(name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.any_encoder import TimmFeatures

    return TimmFeatures(name, place, resize)


def _transformers(name: str, place: str, resize: str) -> NetworkFeatures:
    from ddim_core.features.any_encoder import TransformersFeatures

    return TransformersFeatures(name, place, resize)


PRETRAINED = {
    "inception-v3": Pretrained(_inception, THREE),
    "inception-v3-spatial": Pretrained(_spatial, THREE),
    "afhq-inception": Pretrained(_afhq, ("torch", "clean", "tf1")),
    "clip-vit-b-32": Pretrained(_clip, ("clean", "tf1", "torch"), CLIP_HUB_ID, folder=True),
    "clip-vit-l-14-336": Pretrained(
        _clip, ("crop", "pillow", "clean"), "openai/clip-vit-large-patch14-336", folder=True
    ),
    "dinov2-vit-b-14": Pretrained(_dinov2, ("clean", "tf1", "torch"), DINOV2_HUB_ID, folder=True),
    "dinov2-vit-l-14": Pretrained(
        _dinov2_by_its_authors,
        ("pillow", "bicubic", "clean"),
        "facebook/dinov2-large",
        folder=True,
    ),
}
# Any encoder of a library, named behind a colon: `timm:NAME`, `transformers:FOLDER`.
FAMILIES = {
    "timm": Pretrained(_timm, ("pillow", *THREE, "bicubic", "crop"), folder=True),
    "transformers": Pretrained(_transformers, ("pillow", *THREE, "bicubic", "crop"), folder=True),
}
FEW_PIXELS = 32 * 32 * 3
EXTRACTORS = ("classifier", "pixels", *PRETRAINED)


def pretrained(name: str) -> Pretrained | None:
    """What is known of a pretrained extractor, one of a family among them; None of another."""
    family, colon, member = name.partition(":")
    return FAMILIES.get(family) if colon and member else PRETRAINED.get(name)


@dataclass(frozen=True)
class ExtractorChoice:
    """An extractor as a user names it.

    Attributes:
        name: One of `EXTRACTORS`, or `timm:NAME` or `transformers:FOLDER`; on construction also
            with the resize behind it, such as `inception-v3-clean`.
        weights: File, folder or hub id of a pretrained one; empty takes the usual place.
        resize: One that it has, empty for its usual one; `none` for those that are not pretrained,
            which see images as they are.

    Raises:
        ValueError: If there is no such extractor, it has no such resize, or its weights are
            nowhere.
    """

    name: str
    weights: str = ""
    resize: str = ""

    def __post_init__(self) -> None:
        for resize in RESIZES:
            if pretrained(self.name.removesuffix(f"-{resize}")) and not pretrained(self.name):
                if self.resize not in ("", resize):
                    raise ValueError(f"features is {self.name!r}, but resize is {self.resize!r}")
                object.__setattr__(self, "name", self.name.removesuffix(f"-{resize}"))
                object.__setattr__(self, "resize", resize)
        known = pretrained(self.name)
        if known is None:
            require_choice("features", self.name, (*EXTRACTORS, "timm:NAME", "transformers:FOLDER"))
            if self.resize not in ("", "none"):
                raise ValueError(
                    f"resize is {self.resize!r}, but {self.name} features see images as they are; "
                    f"it is for {', '.join(PRETRAINED)}"
                )
            object.__setattr__(self, "resize", "none")
            return
        object.__setattr__(self, "resize", self.resize or known.resizes[0])
        require_choice("resize", self.resize, known.resizes)
        self._settle_place()
        self._check_weights(known)

    def _settle_place(self) -> None:
        """Takes a folder or hub id out of `transformers:FOLDER`: what names features is no path."""
        family, _, place = self.name.partition(":")
        if family == "transformers" and not self.weights:
            object.__setattr__(self, "weights", place)
        if family == "transformers":
            object.__setattr__(self, "name", f"{family}:{Path(place).resolve().name}")

    @property
    def label(self) -> str:
        """The name with its resize."""
        return self.name if self.resize == "none" else f"{self.name}-{self.resize}"

    def _check_weights(self, known: Pretrained) -> None:
        if self.name.startswith("timm:") and find_spec("timm") is None:
            raise ValueError(
                f"features is {self.name!r}, and the package timm is not installed; pip install "
                "'ddim-flows[timm]'"
            )
        if self.name == "afhq-inception" and not self.weights:
            raise ValueError(
                "afhq-inception needs feature_weights: a file with the state dict of a "
                "torchvision Inception"
            )
        if self.weights and not known.folder and not is_there(Path(self.weights)):
            raise ValueError(f"there is no file of feature_weights {self.weights!r}")
        if known.folder and is_there(Path(self.weights)):
            raise ValueError(
                f"feature_weights {self.weights!r} is a file; {self.name} takes a "
                f"{'timm' if self.name.startswith('timm:') else 'transformers'} folder or a hub id"
            )


def open_extractor(choice: ExtractorChoice) -> NetworkFeatures:
    """Opens a pretrained extractor.

    Raises:
        ValueError: If its weights cannot be had or are something else, or it is not pretrained.
    """
    known = pretrained(choice.name)
    if known is None:
        raise ValueError(f"{choice.name} features are not pretrained; they come from the images")
    return known.open(choice.name, choice.weights or known.hub_id or "", choice.resize)


def every_choice(own: ExtractorChoice, n_values: int) -> list[ExtractorChoice]:
    """Returns every protocol that can be had without a download.

    These are the own extractor and the others whose usual weights are on this machine, each with
    every resize; and pixels, where an image has at most 32x32x3 values, so that it costs seconds.

    Args:
        own: The extractor that was asked for, with its weights.
        n_values: Height x width x channels of an image.
    """
    others = [ExtractorChoice(name) for name in at_hand() if name != own.name]
    resized = [
        replace(choice, resize=how)
        for choice in (own, *others)
        if (known := pretrained(choice.name))
        for how in RESIZES
        if how in known.resizes
    ]
    return resized + [ExtractorChoice("pixels")] * (n_values <= FEW_PIXELS)


def at_hand() -> list[str]:
    """Names the pretrained extractors whose usual weights are on this machine already."""
    found = ["inception-v3"] if local_inception_weights() else []
    for name, known in PRETRAINED.items():
        if known.hub_id:
            try:
                model_folder(known.hub_id, name, local_only=True)
            except ValueError:
                continue
            found.append(name)
    return found
