"""Opens a whole pipeline from a folder, or from one file beside a folder of configurations."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ddim_core.common.checks import require_choice
from ddim_core.common.foreign import Config, Keywords
from ddim_core.common.late import late, when_imported
from ddim_core.networks.building import LOADING
from ddim_core.networks.text_length import fit_length
from ddim_core.pipelines.parts import PipelineParts, part_class, pipeline_parts
from ddim_core.pipelines.rehearsal import start_of
from ddim_core.pipelines.single_file import load_single_file
from ddim_core.pipelines.takes import Takes, divisors_of, hands_streams, networks_of, what_it_takes
from ddim_core.safe_files.safe_load import first_line

if TYPE_CHECKING:
    import transformers
else:
    transformers = late("transformers")

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
DECODERS = ("vae", "vqvae", "movq")
TRAINED = "it draws {} x {} pixels, as its network was trained"
LEFT_OUT_WORDS = {
    "safety_checker": "the safety checker is left out: it would paint pictures black",
    "watermarker": "the watermark is left out",
}


def _silenced(library: Any) -> None:
    """What matters is raised; the rest would be said for each cell."""
    library.utils.logging.disable_progress_bar()
    library.utils.logging.set_verbosity_error()


for _library in ("diffusers", "transformers"):
    when_imported(_library, _silenced)


@dataclass(frozen=True, eq=False)
class OpenedPipeline:
    """A pipeline ready to draw from, and what is known about it.

    Attributes:
        pipeline: Of diffusers, frozen; draws are made on copies of it.
        name: Its class.
        takes: What its call takes.
        height, width: Of its images, in pixels.
        channels: Of its images.
        shape: Of one image's x_T, as the call takes it (packed, where it packs).
        latent_dtype: Number format of x_T as the pipeline draws it; ours is cast to it.
        dtype, device: Of its networks.
        scheduler: The configuration of its own scheduler, with its `_class_name`.
        n_classes: Classes of a class-to-image pipeline; else None.
        hands_streams: Whether its call hands `generator` to the scheduler's steps; where it does
            not, a run of plain diffusers with a noisy scheduler cannot be drawn again.
        encodes: Whether it has text encoders, so that prompts can be encoded.
        notes: What was left out, in sentences.
        on_card: Whether it runs as on a card, see `ready_for_card`.
    """

    pipeline: Any
    name: str
    takes: Takes
    height: int
    width: int
    channels: int
    shape: tuple[int, ...]
    latent_dtype: torch.dtype
    dtype: str
    device: str
    scheduler: Mapping[str, Any]
    n_classes: int | None
    hands_streams: bool
    encodes: bool
    notes: tuple[str, ...]
    on_card: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width for a call that takes them; (0, 0) for others."""
        return (self.height, self.width) if "height" in self.takes.parameters else (0, 0)


def open_pipeline(
    place: Path,
    dtype: str = "float32",
    device: str = "cpu",
    resolution: int = 0,
    configuration: Path | None = None,
) -> OpenedPipeline:
    """Opens a pipeline; nothing is downloaded, and no code that lies in it is run.

    Args:
        place: A pipeline's folder, or a single `.safetensors` file of SD 1.x or SDXL.
        dtype: Of the networks: float32, float16 or bfloat16.
        device: Where they go.
        resolution: Height and width in pixels; 0 is the pipeline's own.
        configuration: For a single file: a pipeline's folder, whose configurations and tokenizers
            describe what the file holds; no weights of it are read.

    Raises:
        ValueError: In one sentence, if it is no such pipeline, makes no images from noise alone,
            lacks a part, holds pickles, or cannot be opened.
        MemoryError: If it does not fit into the memory of the device.
    """
    require_choice("dtype", dtype, tuple(DTYPES))
    if place.is_dir():
        if configuration is not None:
            raise ValueError(f"{place.name} is a folder; a configuration belongs to a single file")
        parts = pipeline_parts(place)
        pipeline = _loaded(parts, DTYPES[dtype])
    else:
        pipeline, parts = load_single_file(place, configuration, DTYPES[dtype])
    _require_complete(pipeline, place.name)
    takes = what_it_takes(pipeline)
    try:
        pipeline.to(device)
    except (torch.OutOfMemoryError, RuntimeError, AssertionError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise MemoryError(
                f"memory ran out when {place.name} was put on {device}; give dtype bfloat16 or "
                "float16, or a device with more memory"
            ) from error
        raise ValueError(f"{place.name} cannot be put on {device}: {first_line(error)}") from error
    return _described(pipeline, takes, parts, dtype, device, resolution)


def _loaded(parts: PipelineParts, dtype: torch.dtype) -> Any:
    """The pipeline of a folder that was looked through."""
    flags = {"requires_safety_checker": False}
    known = inspect.signature(parts.kind.__init__).parameters
    given: Keywords = dict.fromkeys(parts.absent)
    given |= {name: value for name, value in flags.items() if name in known}
    try:
        with LOADING, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of settings that the class itself corrects
            for name in parts.opened:
                kind = part_class(parts.folder, name)
                if issubclass(kind, transformers.PreTrainedModel):
                    given[name] = _text_model(kind, parts, name, dtype)
            return parts.kind.from_pretrained(
                parts.folder, local_files_only=True, use_safetensors=True, dtype=dtype,
                variant=parts.variant, trust_remote_code=False, **given,
            )  # fmt: skip
    except Exception as error:  # other people's files can be wrong in every way
        raise ValueError(
            f"{parts.folder.name} cannot be opened as a {parts.kind.__name__}: {first_line(error)}"
        ) from error


def _text_model(kind: Any, parts: PipelineParts, name: str, dtype: torch.dtype) -> Any:
    """A part of transformers, which makes up weights that are missing unless it is asked."""
    network, told = kind.from_pretrained(
        parts.folder / name, use_safetensors=True, local_files_only=True, trust_remote_code=False,
        variant=parts.variant, dtype=dtype, output_loading_info=True,
    )  # fmt: skip
    missing = sorted(map(str, [*told["missing_keys"], *told.get("mismatched_keys", ())]))
    if missing:
        raise ValueError(
            f"its {name} lacks {len(missing)} weights that its configuration asks for, the first "
            f"of them {missing[0]}"
        )
    return network


def _require_complete(pipeline: Any, where: str) -> None:
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        missing = [key for key, weight in part.named_parameters() if weight.is_meta]
        if missing:
            raise ValueError(
                f"the {name} of {where} lacks {len(missing)} weights that its configuration asks "
                f"for, the first of them {missing[0]}"
            )
        part.eval().requires_grad_(False)
    for suffix in ("", "_2", "_3"):
        tokenizer, encoder = (getattr(pipeline, f"{p}{suffix}", None) for p in TEXTS)
        longest = getattr(getattr(encoder, "config", None), "max_position_embeddings", None)
        if tokenizer is not None and longest is not None:
            fit_length(tokenizer, longest)


TEXTS = ("tokenizer", "text_encoder")


def _described(
    pipeline: Any, takes: Takes, parts: PipelineParts, dtype: str, device: str, resolution: int
) -> OpenedPipeline:
    name, own = type(pipeline).__name__, pipeline.scheduler
    if resolution:
        require_size(pipeline, takes, resolution)
    changed = _changed(own, parts.scheduler)
    notes = _notes(takes, parts, changed)
    if not resolution and (trained := _trained_size(pipeline, takes)):
        resolution = trained
        notes += (TRAINED.format(trained, trained),)
    first, shape = start_of(pipeline, takes, own, (resolution, resolution))
    factor = factor_of(pipeline) if len(first.entered) == 4 else 0
    return OpenedPipeline(
        pipeline,
        name,
        takes,
        height=resolution or first.height or first.entered[-2] * factor,
        width=resolution or first.width or first.entered[-1] * factor,
        channels=_channels(pipeline, shape),
        shape=shape,
        latent_dtype=first.dtype or torch.float32,
        dtype=dtype,
        device=device,
        scheduler={**parts.scheduler, **changed},
        n_classes=_n_classes(pipeline, takes),
        hands_streams=hands_streams(type(pipeline)),
        encodes=_encodes(pipeline, parts),
        notes=notes,
    )


def require_size(pipeline: Any, takes: Takes, resolution: int) -> None:
    """Makes sure that a pipeline's call takes a height and width, and draws just these.

    Some calls refuse a size that is no multiple of theirs, others draw a smaller one.

    Raises:
        ValueError: If not, with the nearest sizes that would do.
    """
    name = type(pipeline).__name__
    if "height" not in takes.parameters:
        raise ValueError(
            f"resolution is {resolution}, and a {name} draws one size only; leave it out"
        )
    patch = getattr(pipeline, networks_of(pipeline)[0]).config.get("patch_size")
    per_patch = factor_of(pipeline) * (patch if isinstance(patch, int) else 1)
    step = math.lcm(per_patch, *divisors_of(pipeline))
    if resolution % step or not resolution:
        below = resolution - resolution % step
        near = " or ".join(str(side) for side in (below, below + step) if side)
        raise ValueError(
            f"resolution is {resolution}, and a {name} draws multiples of {step} pixels; give "
            f"{near}"
        )


def _trained_size(pipeline: Any, takes: Takes) -> int:
    """The size that a network was trained at, where the call has one number for all networks.

    Of a network that cuts its positions out of a larger table, sample_size says nothing; 0 then,
    and where the call goes by the network itself.
    """
    usual = inspect.signature(type(pipeline).__call__).parameters.get("height")
    config = getattr(pipeline, networks_of(pipeline)[0]).config
    side = config.get("sample_size")
    if usual is None or not isinstance(usual.default, int) or not isinstance(side, int):
        return 0
    size = side * factor_of(pipeline)
    return 0 if config.get("pos_embed_max_size") or size == usual.default else size


def factor_of(pipeline: Any) -> int:
    """Returns the pixels per latent, along each side."""
    for name in DECODERS:
        decoder = getattr(pipeline, name, None)
        if decoder is not None:
            levels = decoder.config.get("block_out_channels") or (1,)
            return int(getattr(pipeline, "vae_scale_factor", 0) or 2 ** (len(levels) - 1))
    return 1


def _channels(pipeline: Any, shape: tuple[int, ...]) -> int:
    """Of the images: what a decoder makes, or those of x_T, whose variance a network may add."""
    decoders = [getattr(pipeline, name) for name in DECODERS if getattr(pipeline, name, None)]
    return int(decoders[0].config.get("out_channels") or 3) if decoders else shape[0]


def _n_classes(pipeline: Any, takes: Takes) -> int | None:
    if takes.modality != "class-to-image":
        return None
    config = getattr(pipeline, networks_of(pipeline)[0]).config
    told = config.get("num_class_embeds") or config.get("num_embeds_ada_norm")
    return int(told) if told else None


def _encodes(pipeline: Any, parts: PipelineParts) -> bool:
    optional = pipeline._optional_components
    missing = [n for n in parts.absent if n.startswith(TEXTS) and n not in optional]
    has_tokenizer = any(name.startswith("tokenizer") for name in parts.opened)
    return has_tokenizer and not missing and hasattr(pipeline, "encode_prompt")


def _changed(scheduler: Any, told: Mapping[str, Any]) -> Config:
    """The settings of its scheduler that a pipeline's class changes when it is made."""
    before = type(scheduler).from_config(dict(told)).config
    return {
        name: value
        for name, value in scheduler.config.items()
        if not name.startswith("_") and value != before.get(name)
    }


def _notes(takes: Takes, parts: PipelineParts, changed: Mapping[str, Any]) -> tuple[str, ...]:
    notes = [LEFT_OUT_WORDS[name] for name in parts.left_out if name in LEFT_OUT_WORDS]
    if "denoising_end" in takes.parameters:
        notes.append("no refiner is run after it (denoising_end)")
    notes += [
        f"{parts.kind.__name__} sets {name} of its scheduler to {value!r}, whatever its file says"
        for name, value in changed.items()
    ]
    return tuple(notes)
