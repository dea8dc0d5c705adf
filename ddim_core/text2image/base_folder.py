"""The base of a LoRA: a folder of Stable Diffusion 1.x to 3 or Flux, opened part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddim_core.common.digest import digest, file_digest
from ddim_core.common.late import late, when_imported
from ddim_core.common.plain_files import is_regular, is_there, require_plain_tree
from ddim_core.diffusion.scheduler_config import BETAS, class_defaults
from ddim_core.networks.building import LOADING
from ddim_core.networks.checks import (
    require_justified,
    require_picture_side,
    require_sampled,
    require_schedule,
)
from ddim_core.networks.text_length import fit_length
from ddim_core.safe_files.hub import fetched
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.tokenizer_files import (
    require_harmless_tokenizer,
    require_plain_tokenizer,
)
from ddim_core.text2image.families import Family, family_of, tokenizer_of
from ddim_core.text2image.scheduler_noise import FLOW

if TYPE_CHECKING:
    import diffusers
    import transformers
else:
    diffusers = late("diffusers")
    transformers = late("transformers")

HUB_FILES = ["*.json", "*.txt", "*/*.json", "*/*.txt", "*/*.safetensors"]
VARIANTS = ["*fp16*", "*non_ema*"]


def _without_bars(library: Any) -> None:
    """A bar for each part that is opened tells nothing."""
    library.utils.logging.disable_progress_bar()


for _library in ("diffusers", "transformers"):
    when_imported(_library, _without_bars)


def locate_base(name: str) -> Path:
    """Returns the folder of a base, given that folder or a hub id (fetched where not here yet).

    Raises:
        ValueError: If it is neither, or is not a Stable Diffusion pipeline in safetensors.
    """
    folder = Path(name)
    if not folder.is_dir():
        folder = _from_hub(name)
    index = folder / "model_index.json"
    if not is_there(index):
        raise ValueError(f"{name!r} has no model_index.json; a base is a diffusers pipeline folder")
    family = family_of(folder)
    missing = [part for part in family.parts if not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"{name!r} lacks its {', '.join(missing)}")
    _require_plain(folder, family)
    return folder


def _require_plain(folder: Path, family: Family) -> None:
    """Makes sure of a base's files before a library opens them: that nothing in them is absurd,
    and that its weights justify what its configurations ask for."""
    require_plain_tree(folder)
    family.index(folder)  # the classes of its parts are known
    network_kind = getattr(diffusers, family.network_kind)
    for part, kind in ((family.network, network_kind), ("vae", diffusers.AutoencoderKL)):
        require_justified(kind, folder / part, part)
    vae = read_settings(folder / "vae" / "config.json")
    require_picture_side(family.config(folder), vae, "vae")
    for name in ("latents_mean", "latents_std"):
        if vae.get(name):
            raise ValueError(f"{name} is set in vae; a LoRA is trained on latents that are scaled")
    for part in family.encoders:
        require_justified(_class_of(folder, part), folder / part, part)
    for part in map(tokenizer_of, family.clip):
        require_plain_tokenizer(folder / part)
    if family.t5:
        place = folder / tokenizer_of(family.t5)
        require_harmless_tokenizer(place)
        if not is_there(place / "tokenizer.json"):
            raise ValueError(f"the {place.name} of {folder.name} has no tokenizer.json")
    told = read_settings(folder / "scheduler" / "scheduler_config.json")
    if not family.flow:
        require_schedule(told)
        return
    require_sampled(told)
    named = family.index(folder)["scheduler"][1]
    if named != FLOW or told.get("stochastic_sampling"):
        raise ValueError(
            f"the scheduler of {folder.name} is a {named}; a LoRA is trained and drawn by a {FLOW} "
            "with stochastic_sampling off"
        )


def _from_hub(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(
            f"there is no folder {name!r}; give a Stable Diffusion or Flux folder or a hub id"
        )
    return fetched(name, HUB_FILES, without=VARIANTS)


def part_digests(folder: Path) -> dict[str, str]:
    """Returns a digest of each part of a base, over the names and bytes of its files: what a
    cached result depends on. Latents need the autoencoder alone."""
    parts = family_of(folder).parts
    return {
        part: digest(
            [
                [path.relative_to(folder).as_posix(), file_digest(path)]
                for path in sorted((folder / part).rglob("*"))
                if is_regular(path) and path.suffix in {".json", ".txt", ".safetensors", ".model"}
            ]
        )
        for part in parts
    }


def load_network(folder: Path) -> Any:
    """Returns the network that denoises, a U-Net or a transformer; frozen, in float32."""
    family = family_of(folder)
    return _frozen(folder, family.network, getattr(diffusers, family.network_kind))


def load_vae(folder: Path) -> diffusers.AutoencoderKL:
    """Returns the autoencoder, frozen, in float32."""
    return _frozen(folder, "vae", diffusers.AutoencoderKL)


def load_text_encoders(folder: Path) -> list[Any]:
    """Returns the CLIP text encoders, of which bases have one or two; frozen, in float32."""
    return [_frozen(folder, part, _class_of(folder, part)) for part in family_of(folder).clip]


def load_t5(folder: Path) -> Any | None:
    """Returns the T5 of SD3 or Flux, frozen, in float32; None of another base."""
    part = family_of(folder).t5
    return _frozen(folder, part, _class_of(folder, part)) if part else None


def load_tokenizers(folder: Path) -> list[Any]:
    """Returns the tokenizers of all text encoders, each as long as its encoder reads."""
    family = family_of(folder)
    with LOADING:
        return [
            fit_length(
                _class_of(folder, tokenizer_of(part)).from_pretrained(
                    folder / tokenizer_of(part), local_files_only=True
                ),
                family.t5_tokens
                if part == family.t5
                else int(read_settings(folder / part / "config.json")["max_position_embeddings"]),
            )
            for part in family.encoders
        ]


def load_noise_scheduler(
    folder: Path,
) -> diffusers.DDPMScheduler | diffusers.FlowMatchEulerDiscreteScheduler:
    """Returns the schedule that the base was trained on: of SD3 and Flux that of their flow.

    Raises:
        ValueError: If that of a base without a flow has no betas, or the base predicts neither the
            noise nor v.
    """
    told = read_settings(folder / "scheduler" / "scheduler_config.json")
    named = read_settings(folder / "model_index.json")["scheduler"][1]
    if family_of(folder).flow:
        return diffusers.FlowMatchEulerDiscreteScheduler.from_config(told)
    defaults = class_defaults(named)
    if defaults is not None and "beta_schedule" not in defaults:
        raise ValueError(f"the base's scheduler, {named}, has no betas; a LoRA is trained on these")
    # DDPMScheduler has defaults of its own: what is not told is what the base's class takes.
    betas = {name: value for name, value in (defaults or {}).items() if name in BETAS}
    scheduler = diffusers.DDPMScheduler.from_config({**betas, **told})
    kind = scheduler.config.prediction_type
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"the base predicts {kind!r}; it must predict epsilon or v_prediction")
    return scheduler


def load_pipeline(folder: Path, device: str = "cpu") -> Any:
    """Returns the whole pipeline in float32, without a safety checker or progress bar."""
    family = family_of(folder)
    has_checker = family.pipeline == "StableDiffusionPipeline"
    given = {"safety_checker": None, "requires_safety_checker": False} if has_checker else {}
    with LOADING:
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, **given
        )
    for part in family.clip:
        longest = getattr(pipeline, part).config.max_position_embeddings
        fit_length(getattr(pipeline, tokenizer_of(part)), longest)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def latent_factor(folder: Path) -> int:
    """Returns the pixels per latent, each way."""
    return 2 ** (len(read_settings(folder / "vae" / "config.json")["block_out_channels"]) - 1)


def size_step(folder: Path) -> int:
    """Returns what height and width must be multiples of: pixels per cell of the network's deepest
    level (64 for SD 1.5, 16 for SD3 and Flux)."""
    family = family_of(folder)
    return latent_factor(folder) * family.cell(family.config(folder))


def own_resolution(folder: Path) -> int:
    """Returns the height and width that the base was trained at, in pixels."""
    family = family_of(folder)
    return latent_factor(folder) * family.latents(family.config(folder))


def largest_side(folder: Path) -> int:
    """Returns the pixels along a side that the base takes at most."""
    family = family_of(folder)
    return latent_factor(folder) * family.most_latents(family.config(folder))


def _class_of(folder: Path, part: str) -> Any:
    _, name = family_of(folder).index(folder)[part]
    return getattr(transformers, name)


def _frozen(folder: Path, part: str, kind: Any) -> Any:
    try:
        with LOADING:
            model = kind.from_pretrained(
                folder / part, local_files_only=True, use_safetensors=True, dtype=torch.float32
            )
    except (OSError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"the {part} of {folder.name} cannot be opened: {reason}") from error
    return model.requires_grad_(False).eval()
