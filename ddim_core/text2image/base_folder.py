"""The base of a LoRA: a Stable Diffusion folder (1.x, 2.x or XL), opened part by part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddim_core.common.digest import digest, file_digest
from ddim_core.common.late import late, when_imported
from ddim_core.common.plain_files import is_regular, is_there, require_plain_tree
from ddim_core.diffusion.scheduler_config import BETAS, class_defaults
from ddim_core.networks.building import LOADING
from ddim_core.networks.checks import require_justified, require_picture_side, require_schedule
from ddim_core.networks.text_length import fit_length
from ddim_core.safe_files.hub import fetched
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.tokenizer_files import require_plain_tokenizer
from ddim_core.safe_files.understood import understood_index

if TYPE_CHECKING:
    import diffusers
    import transformers
else:
    diffusers = late("diffusers")
    transformers = late("transformers")

PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
NEEDED = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
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
    kind = understood_index(read_settings(index)).get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{name!r} is a {kind}; a base must be one of {', '.join(PIPELINES)}")
    needed = (*NEEDED, "text_encoder_2", "tokenizer_2") if kind == PIPELINES[1] else NEEDED
    missing = [part for part in needed if not (folder / part).is_dir()]
    if missing:
        raise ValueError(f"{name!r} lacks its {', '.join(missing)}")
    _require_plain(folder)
    return folder


def _require_plain(folder: Path) -> None:
    """Makes sure of a base's files before a library opens them: that nothing in them is absurd,
    and that its weights justify what its configurations ask for."""
    require_plain_tree(folder)
    for part, kind in (("unet", diffusers.UNet2DConditionModel), ("vae", diffusers.AutoencoderKL)):
        require_justified(kind, folder / part, part)
    unet, vae = (read_settings(folder / part / "config.json") for part in ("unet", "vae"))
    require_picture_side(unet, vae, "vae")
    for part in ("text_encoder", "text_encoder_2"):
        if (folder / part).is_dir():
            require_justified(_class_of(folder, part), folder / part, part)
    for part in ("tokenizer", "tokenizer_2"):
        if (folder / part).is_dir():
            require_plain_tokenizer(folder / part)
    require_schedule(read_settings(folder / "scheduler" / "scheduler_config.json"))


def _from_hub(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ValueError(f"there is no folder {name!r}; give a Stable Diffusion folder or a hub id")
    return fetched(name, HUB_FILES, without=VARIANTS)


def part_digests(folder: Path) -> dict[str, str]:
    """Returns a digest of each part of a base, over the names and bytes of its files: what a
    cached result depends on. Latents need the autoencoder alone."""
    return {
        part: digest(
            [
                [path.relative_to(folder).as_posix(), file_digest(path)]
                for path in sorted((folder / part).rglob("*"))
                if is_regular(path) and path.suffix in {".json", ".txt", ".safetensors", ".model"}
            ]
        )
        for part in PARTS
        if (folder / part).is_dir()
    }


def is_xl(folder: Path) -> bool:
    """Tells whether a base is of the XL kind, with two text encoders."""
    return (folder / "text_encoder_2").is_dir()


def load_unet(folder: Path) -> diffusers.UNet2DConditionModel:
    """Returns the U-Net, frozen, in float32."""
    return _frozen(folder, "unet", diffusers.UNet2DConditionModel)


def load_vae(folder: Path) -> diffusers.AutoencoderKL:
    """Returns the autoencoder, frozen, in float32."""
    return _frozen(folder, "vae", diffusers.AutoencoderKL)


def load_text_encoders(folder: Path) -> list[Any]:
    """Returns the one text encoder of SD 1.x and 2.x, or the two of XL; frozen, in float32."""
    return [
        _frozen(folder, part, _class_of(folder, part))
        for part in ("text_encoder", "text_encoder_2")
        if (folder / part).is_dir()
    ]


def load_tokenizers(folder: Path) -> list[Any]:
    """Returns the tokenizers that belong to the text encoders, each as long as its encoder."""
    with LOADING:
        return [
            fit_length(
                _class_of(folder, part).from_pretrained(folder / part, local_files_only=True),
                int(read_settings(folder / encoder / "config.json")["max_position_embeddings"]),
            )
            for part, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2"))
            if (folder / part).is_dir()
        ]


def load_noise_scheduler(folder: Path) -> diffusers.DDPMScheduler:
    """Returns the schedule that the base was trained on.

    Raises:
        ValueError: If it has no betas, or the base predicts neither the noise nor v.
    """
    told = read_settings(folder / "scheduler" / "scheduler_config.json")
    named = read_settings(folder / "model_index.json")["scheduler"][1]
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
    with LOADING:
        given = {} if is_xl(folder) else {"safety_checker": None, "requires_safety_checker": False}
        pipeline = diffusers.DiffusionPipeline.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32, **given
        )
    for part, encoder in (("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")):
        if getattr(pipeline, part, None) is not None:
            longest = getattr(pipeline, encoder).config.max_position_embeddings
            fit_length(getattr(pipeline, part), longest)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def latent_factor(folder: Path) -> int:
    """Returns the pixels per latent, each way."""
    return 2 ** (len(read_settings(folder / "vae" / "config.json")["block_out_channels"]) - 1)


def size_step(folder: Path) -> int:
    """Returns what height and width must be multiples of: pixels per cell of the U-Net's deepest
    level (64 for SD 1.5)."""
    levels = read_settings(folder / "unet" / "config.json")["block_out_channels"]
    return latent_factor(folder) * 2 ** (len(levels) - 1)


def own_resolution(folder: Path) -> int:
    """Returns the height and width that the base was trained at, in pixels."""
    size = read_settings(folder / "unet" / "config.json")["sample_size"]
    return latent_factor(folder) * int(size if isinstance(size, int) else size[0])


def _class_of(folder: Path, part: str) -> Any:
    _, name = understood_index(read_settings(folder / "model_index.json"))[part]
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
