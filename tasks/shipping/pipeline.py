"""Cells that a pipeline's own call drew."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from ddim_core.common.foreign import Keywords
from ddim_core.diffusion.specs import SchedulerSpec
from ddim_core.pipelines.arguments import Conditions, Setting, call_arguments, plain_call
from ddim_core.pipelines.fitting import halves_of, where_it_asks
from ddim_core.pipelines.opening import OpenedPipeline
from ddim_core.pipelines.takes import networks_of
from ddim_core.safe_files.loras.files import is_plain
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import scheduler_for, takes_eta
from ddim_core.schedulers.registry import require_of_diffusers
from ddim_core.shipping.listed import handed, listed_steps
from ddim_core.shipping.readme import Plain
from ddim_core.shipping.script import CONDITIONS, Asked, PipelineCall, pipeline_script
from ddim_core.shipping.snippet import PlainCall, pipeline_snippet
from tasks.checkpoints.pipelines import pipeline_in_memory
from tasks.sampling.conditions import KIND, conditions_for, encode_conditions
from tasks.sampling.pipeline import (
    batch_of,
    laid_over,
    libraries_of,
    resolution_of,
    setting_of,
)
from tasks.shipping.cell import ScoredCell
from tasks.shipping.ready import Ready, ShippedLora, guided_at, notes_on_guided, shared_by
from tasks.storage import store
from tasks.storage.store import ArtifactRef

OURS = ("generator", "batch_size")  # arguments that differ from batch to batch
N_CLASSES_SHOWN = 4
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*\.safetensors", re.ASCII)


def ready_pipeline(scored: ScoredCell) -> Ready:
    """Returns what is written for a cell of a pipeline's own call."""
    assert isinstance(scored.cell.sampler, SchedulerSpec)
    loras = _loras(scored)
    laid = [(lora.file, lora.scale) for lora in loras]
    given = _conditions(scored)
    conditions = conditions_for(scored.checkpoint, given, range(len(scored.images)))
    asked = resolution_of(scored.cell)
    opened = pipeline_in_memory(scored.checkpoint, dtype=scored.cell.dtype, resolution=asked)
    setting = setting_of(scored.cell)
    scheduler = scheduler_for(parse_sampler(scored.cell.sampler.sampler), opened.scheduler)
    kind = type(scheduler).__name__
    require_of_diffusers(kind)
    own_steps = listed_steps(setting.sampler, kind)
    guided, asked_for = guided_at(scored, where_it_asks(opened, setting).timesteps), None
    if setting.interval is not None:
        halves = halves_of(opened, setting.interval)
        asked_for = Asked(halves.doubled, halves.prompts_last, networks_of(opened.pipeline))
    folder = store.get_folder(scored.checkpoint)
    script = pipeline_script(
        shared_by(scored, folder, opened.shape, batch_of(scored.cell)),
        PipelineCall(
            pipeline=opened.name,
            absent=[name for name, part in opened.pipeline.components.items() if part is None],
            scheduler=kind,
            own_steps=own_steps,
            eta=setting.eta,
            call=_same_for_all(opened, setting, conditions),
            listed=list(opened.takes.listed),
            takes_latents=opened.takes.latents,
            takes_batch_size="batch_size" in opened.takes.parameters,
            latent_dtype=str(opened.latent_dtype).removeprefix("torch."),
            loras=laid,
            guided=guided,
        ),
        asked_for,
    )
    call, left = handed(
        plain_call(opened.takes, setting, opened.size, () if opened.encodes else conditions),
        own_steps, bool(scheduler.config.get("use_flow_sigmas")),
    )  # fmt: skip
    with_eta = takes_eta(scheduler) and "eta" not in opened.takes.parameters
    absent = [name for name, part in opened.pipeline.components.items() if part is None]
    snippet = pipeline_snippet(
        PlainCall(
            folder=str(folder),
            pipeline=opened.name,
            scheduler=kind,
            absent=tuple(n for n in absent if n not in opened.pipeline._optional_components),
            call=call,
            own_steps=left,
            eta=setting.eta if with_eta else 0.0,
            dtype=scored.cell.dtype,
            told=_told(opened, scored.cell.dtype, list(conditions)),
            loras=tuple(laid),
            guided=guided,
            asked=asked_for,
        )
    )
    notes = (*_notes(opened), *notes_on_guided(scored, guided), *_notes_on(loras))
    plain = Plain(kind, snippet, _form(opened, setting), notes)
    return Ready(script, scheduler, conditions, plain, loras)


def _loras(scored: ScoredCell) -> tuple[ShippedLora, ...]:
    """The LoRA files over a cell's pipeline, by the names that they had where those can stand
    beside the script.

    Raises:
        ValueError: If plain diffusers does not load one.
    """
    named = {digest: name for name, digest, _ in json.loads(scored.row.loras or "[]")}
    found: list[ShippedLora] = []
    for i, (digest, scale) in enumerate(laid_over(scored.cell)):
        name = str(named.get(digest, ""))
        if not is_plain(store.get(ArtifactRef(digest, "lora"))):
            raise ValueError(
                f"the LoRA {name or digest[:12]} is in PEFT's or LyCORIS' layout, which plain "
                "diffusers does not load; a LoRA in diffusers' or kohya's layout is shipped"
            )
        taken = {CONDITIONS, *(lora.file for lora in found)}
        if not PLAIN_NAME.fullmatch(name) or name in taken:
            name = f"lora_{i}.safetensors"
        found.append(ShippedLora(name, digest, scale))
    return tuple(found)


def _notes_on(loras: Sequence[ShippedLora]) -> Iterator[str]:
    for lora in loras:
        yield (
            f"The LoRA `{lora.file}` ({lora.digest[:12]}) lies over its networks, {lora.scale:g} "
            "of it; loading it takes the package peft. A copy that --push makes is without it."
        )


def _conditions(scored: ScoredCell) -> ArtifactRef | None:
    """What the cell's prompts are encoded to: what somebody gave, or encoded again."""
    digest = scored.cell.prompts
    if digest is None:
        return None
    ref = ArtifactRef(artifact=digest, kind=KIND)
    if store.get(ref)[:1] == b"[":  # a list of texts; a safetensors file begins with a length
        return encode_conditions.fn(
            scored.checkpoint, digest, laid_over(scored.cell), libraries_of(scored.cell),
            n=len(scored.images),
        )  # fmt: skip
    return ref


def _same_for_all(opened: OpenedPipeline, setting: Setting, conditions: Conditions) -> Keywords:
    """The call's arguments that no image changes."""
    found = call_arguments(
        opened.takes, conditions, [], setting.steps, setting.guidance, setting.eta, opened.size,
        None,
    )  # fmt: skip
    if opened.dtype == "bfloat16" and not hasattr(opened.pipeline, "image_processor"):
        found["output_type"] = "pt"  # as it was drawn: NumPy has no such format
    return {name: value for name, value in found.items() if name not in (*conditions, *OURS)}


def _told(opened: OpenedPipeline, dtype: str, names: list[str]) -> dict[str, str]:
    """The arguments of the plain call that say what is drawn, as code."""
    takes = opened.takes
    if takes.modality == "class-to-image":
        n = opened.n_classes or 1
        return {"class_labels": str([k % n for k in range(N_CLASSES_SHOWN)])}
    if takes.modality == "unconditional":
        return {"batch_size": "4"} if "batch_size" in takes.parameters else {}
    if opened.encodes:
        away = takes.guidance == "real" and takes.guidance_name == "true_cfg_scale"
        return {"prompt": '"a text"', **({"negative_prompt": '""'} if away else {})}
    cast = "" if dtype == "float32" else f".to(torch.{dtype})"
    plain = {name: f'told["{name}"][:1]{cast if "mask" not in name else ""}' for name in names}
    return {name: f"list({c})" if name in takes.listed else c for name, c in plain.items()}


def _form(opened: OpenedPipeline, setting: Setting) -> str:
    takes = opened.takes
    if takes.modality == "class-to-image":
        return (
            f"It draws for a class number 0 to {(opened.n_classes or 1) - 1}. Image k was scored "
            f"for class k modulo {opened.n_classes}."
        )
    if takes.modality == "unconditional":
        return "It draws from noise alone, without prompts and classes."
    guided = {
        "real": f"guidance {setting.guidance:g} leads away from the empty prompt",
        "embedded": f"the network is told the guidance {setting.guidance:g}",
        "none": "it takes no guidance",
    }[takes.guidance]
    asked = "as text, encoded by its own encoders"
    if not opened.encodes:
        asked = f"already encoded, as {', '.join(takes.conditions)}: it has no text encoders here"
    return (
        f"It draws for a prompt, {asked}; {guided}. Image k was scored for prompt k modulo their "
        "number."
    )


def _notes(opened: OpenedPipeline) -> tuple[str, ...]:
    notes = [f"{note[0].upper()}{note[1:]}." for note in opened.notes]
    if not opened.hands_streams:
        notes.append(
            f"{opened.name} hands its scheduler no generator: what that draws on the way comes "
            "from torch's global stream, which torch.manual_seed sets. sample.py hands it on."
        )
    return tuple(notes)
