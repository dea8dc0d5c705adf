"""What weights of guided-diffusion do not say: its flags, as settings beside them, its published
models, or its defaults say them.

Names and defaults are those of `script_util.py` of openai/guided-diffusion, whose older form is
openai/improved-diffusion; the published models and their flags are in the READMEs of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ddim_core.diffusion.specs import NoiseSpec

NEWER = ("num_head_channels", "resblock_updown", "use_new_attention_order")  # no older code's flags
SCHEDULES = ("linear", "cosine")
BY_LEVELS = {
    (1, 2, 2, 2): 32, (1, 2, 3, 4): 64, (1, 1, 2, 3, 4): 128, (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}  # fmt: skip


@dataclass(frozen=True)
class Flags:
    """The flags that change what the same weights compute, or how they are sampled.

    Attributes:
        image_size: Height and width in pixels; 0 where nothing says it.
        num_heads, num_heads_upsample, num_head_channels: Heads of attention, and the width of one;
            -1 is none given.
        use_new_attention_order: Queries, keys and values lie one after the other, not head by head.
        diffusion_steps: T.
        noise_schedule: `linear` or `cosine`.
        rescale_timesteps: The network is told t 1000 / T.
        predict_xstart: It predicts x0.
        sigma_small: A variance that is not learned is the smaller one.
    """

    image_size: int = 0
    num_heads: int = 4
    num_heads_upsample: int = -1
    num_head_channels: int = -1
    use_new_attention_order: bool = False
    diffusion_steps: int = 1000
    noise_schedule: str = "linear"
    rescale_timesteps: bool = False
    predict_xstart: bool = False
    sigma_small: bool = False

    @property
    def noise(self) -> NoiseSpec:
        """The schedule; `linear` is scaled to T, and its betas are at most 1."""
        n_train = self.diffusion_steps
        if self.noise_schedule == "cosine":
            return NoiseSpec("cosine", n_train)
        return NoiseSpec("linear", n_train, 0.1 / n_train, 20.0 / n_train)


@dataclass(frozen=True)
class Shape:
    """What weights say of their network.

    Attributes:
        num_channels: The width that `channel_mult` multiplies.
        channel_mult: Of each level, full resolution first.
        num_res_blocks: A level.
        levels_with_attention: Their indices.
        n_classes: 0 for an unconditional one.
        resblock_updown, use_scale_shift_norm, learn_sigma: As its flags.
    """

    num_channels: int
    channel_mult: tuple[float, ...]
    num_res_blocks: int
    levels_with_attention: tuple[int, ...]
    n_classes: int
    resblock_updown: bool
    use_scale_shift_norm: bool
    learn_sigma: bool

    @property
    def told(self) -> str:
        """The configuration in words."""
        mult = ",".join(f"{m:g}" for m in self.channel_mult)
        levels = ", ".join(map(str, self.levels_with_attention)) or "none"
        said = [
            f"guided-diffusion with num_channels {self.num_channels}", f"channel_mult {mult}",
            f"num_res_blocks {self.num_res_blocks}", f"attention at the levels {levels} (0 is full "
            f"resolution)", f"{self.n_classes or 'no'} classes",
            f"resblock_updown {self.resblock_updown}",
            f"use_scale_shift_norm {self.use_scale_shift_norm}", f"learn_sigma {self.learn_sigma}",
        ]  # fmt: skip
        return ", ".join(said)


ADM = Flags(num_head_channels=64)
OLDER = Flags(diffusion_steps=4000, noise_schedule="cosine", rescale_timesteps=True)
PUBLISHED: dict[Shape, tuple[str, Flags]] = {
    Shape(192, (1, 2, 3, 4), 3, (1, 2, 3), 1000, True, True, True): (
        "64x64_diffusion.pt",
        replace(ADM, image_size=64, use_new_attention_order=True, noise_schedule="cosine"),
    ),
    Shape(256, (1, 1, 2, 3, 4), 2, (2, 3, 4), 1000, True, True, True): (
        "128x128_diffusion.pt", Flags(image_size=128)
    ),
    Shape(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 1000, True, True, True): (
        "256x256_diffusion.pt", replace(ADM, image_size=256)
    ),
    Shape(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 0, True, True, True): (
        "256x256_diffusion_uncond.pt and the LSUN models", replace(ADM, image_size=256)
    ),
    Shape(256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6), 1000, True, True, True): (
        "512x512_diffusion.pt", replace(ADM, image_size=512)
    ),
    Shape(128, (1, 2, 3, 4), 3, (2, 3), 0, False, True, True): (
        "imagenet64_uncond_100M_1500K.pt of improved-diffusion", replace(OLDER, image_size=64)
    ),
    Shape(128, (1, 2, 2, 2), 3, (1, 2), 0, False, True, True): (
        "cifar10_uncond_50M_500K.pt of improved-diffusion", replace(OLDER, image_size=32)
    ),
    Shape(192, (1, 2, 3, 4), 3, (2, 3), 1000, False, True, True): (
        "imagenet64_cond_270M_250K.pt of improved-diffusion",
        replace(OLDER, image_size=64, rescale_timesteps=False),
    ),
    Shape(128, (1, 1, 2, 2, 4, 4), 2, (4,), 0, False, False, True): (
        "lsun_uncond_100M_1200K_bs128.pt of improved-diffusion", Flags(256, num_heads=1)
    ),
}  # fmt: skip

CONSISTENCY = (  # of openai/consistency_models, which have the same network and names
    Shape(192, (1, 2, 3, 4), 3, (1, 2, 3), 1000, True, True, False),
    Shape(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), 0, True, True, False),
)


def flags_of(shape: Shape, told: Mapping[str, Any]) -> tuple[Flags, list[str], list[str]]:
    """Returns the flags of weights of a shape, and sentences on what is assumed.

    Args:
        shape: Of the weights.
        told: What settings say, in which guided-diffusion's flags are heeded.

    Returns:
        The flags; what is assumed of the network; the same of its schedule.

    Raises:
        ValueError: If the settings are of another network, a flag is of a wrong kind, or nothing
            says the image size.
    """
    known = {field.name for field in fields(Flags)}
    if not known & told.keys():
        return _untold(shape)
    flags = Flags(**{n: _of_kind(n, told[n], getattr(Flags(), n)) for n in known if n in told})
    if "rescale_timesteps" not in told and not any(name in told for name in NEWER):
        flags = replace(flags, rescale_timesteps=True)  # the older code's default
    if flags.noise_schedule not in SCHEDULES:
        raise ValueError(
            f"noise_schedule is {flags.noise_schedule!r} beside the checkpoint; it must be one of "
            f"{', '.join(SCHEDULES)}"
        )
    flags = flags if flags.image_size else replace(flags, image_size=_size_by_levels(shape))
    _require_same(shape, flags, told)
    network = [n for n in ("image_size", "num_heads") if n not in told]
    if "rescale_timesteps" not in told and flags.diffusion_steps != Flags().diffusion_steps:
        network.append("rescale_timesteps")
    if "num_head_channels" in told and "num_heads" in network:
        network.remove("num_heads")
    noise = [n for n in ("noise_schedule", "diffusion_steps") if n not in told]
    return flags, _defaults(network, flags), _defaults(noise, flags)


def _defaults(names: list[str], flags: Flags) -> list[str]:
    if not names:
        return []
    values = ", ".join(f"{name} {getattr(flags, name)}" for name in names)
    return [f"The settings beside the checkpoint leave out what is assumed: {values}."]


def _untold(shape: Shape) -> tuple[Flags, list[str], list[str]]:
    if shape in PUBLISHED:
        name, flags = PUBLISHED[shape]
        heads = f"{flags.num_heads} heads" if flags.num_head_channels < 0 else (
            f"heads of {flags.num_head_channels} channels"
        )  # fmt: skip
        order = "new" if flags.use_new_attention_order else "legacy"
        return flags, [
            f"The checkpoint does not say its image size and attention: it has the shape of the "
            f"published {name}, whose {flags.image_size} pixels, {heads} and {order} order of "
            "attention are assumed."
        ], [
            f"The checkpoint does not say its noise schedule: {flags.noise_schedule} with "
            f"T = {flags.diffusion_steps} is assumed, as of the published {name}."
        ]  # fmt: skip
    if shape in CONSISTENCY:
        raise ValueError(
            "the checkpoint has the shape of OpenAI's consistency models and of the EDMs they were "
            "distilled from, which have guided-diffusion's network and mean other things by its "
            "answers; if it is of guided-diffusion, put its flags beside it, as config.json"
        )
    flags = Flags(image_size=_size_by_levels(shape))
    return flags, [
        f"The checkpoint does not say its image size and attention: {flags.image_size} pixels, "
        "which have such channel_mult by default, and 4 heads in the legacy order, guided-"
        "diffusion's defaults, are assumed; put its flags beside it, as config.json or config.yml."
    ], [
        "The checkpoint does not say its noise schedule: linear with T = 1000 is assumed, "
        "guided-diffusion's default."
    ]  # fmt: skip


def _size_by_levels(shape: Shape) -> int:
    if shape.channel_mult not in BY_LEVELS:
        raise ValueError(
            f"nothing says the image size of the checkpoint, which looks like {shape.told}; put "
            "its flags (image_size, num_heads, noise_schedule, ...) beside it, as config.json or "
            "config.yml"
        )
    return BY_LEVELS[shape.channel_mult]


def _of_kind(name: str, value: Any, usual: Any) -> Any:
    if name == "num_head_channels" and value is None:
        return -1
    if type(value) is not type(usual):
        kind = {bool: "true or false", int: "a whole number", str: "text"}[type(usual)]
        raise ValueError(f"{name} is {value!r:.50} beside the checkpoint; it must be {kind}")
    least = -1 if "head" in name else 1
    if type(value) is int and not least <= value <= 10**6:
        raise ValueError(f"{name} is {value} beside the checkpoint; it must be in {least}..1000000")
    return value


def _require_same(shape: Shape, flags: Flags, told: Mapping[str, Any]) -> None:
    """Holds the flags that weights show too against them."""
    shown: dict[str, Any] = {
        "num_channels": shape.num_channels, "num_res_blocks": shape.num_res_blocks,
        "class_cond": shape.n_classes > 0, "learn_sigma": shape.learn_sigma,
        "use_scale_shift_norm": shape.use_scale_shift_norm,
        "resblock_updown": shape.resblock_updown,
    }  # fmt: skip
    differ = [f"{n} {told[n]!r:.40}" for n, value in shown.items() if told.get(n, value) != value]
    mult = str(told.get("channel_mult") or "").strip("()[] ").replace(" ", "")
    if mult and mult != ",".join(f"{m:g}" for m in shape.channel_mult):
        differ.append(f"channel_mult {mult:.40}")
    sizes = str(told.get("attention_resolutions", "")).strip("()[] ").replace(" ", "")
    here = {flags.image_size >> level for level in shape.levels_with_attention}
    if sizes and {s for s in sizes.split(",") if s} != {str(size) for size in here}:
        differ.append(f"attention_resolutions {sizes:.40} at {flags.image_size} pixels")
    if differ:
        raise ValueError(
            f"the checkpoint looks like {shape.told}; the settings beside it say "
            f"{', '.join(differ)}"
        )
