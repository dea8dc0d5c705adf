"""Cells that a loop drew from a network: by the project's own sampler, or by a scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ddim_core.checkpoints.checkpoint import Checkpoint
from ddim_core.diffusion.sampling import plan
from ddim_core.diffusion.schedule import NoiseSchedule
from ddim_core.diffusion.specs import SamplerSpec, SchedulerSpec
from ddim_core.networks.backbones.registry import BACKBONES
from ddim_core.networks.backbones.wide_time import CLASS_NAME as WIDE_TIME
from ddim_core.safe_files.settings import read_settings
from ddim_core.safe_files.weight_names import DECODER_FOLDERS
from ddim_core.samplers.name import parse_sampler
from ddim_core.samplers.scheduler import learns_variance, scheduler_for, set_steps, takes_eta
from ddim_core.schedulers.registry import require_of_diffusers
from ddim_core.shipping.expressed import Expressed, expressed
from ddim_core.shipping.listed import set_steps_of
from ddim_core.shipping.readme import Plain
from ddim_core.shipping.script import (
    STABLE_DIFFUSION,
    BareNetwork,
    NativeSteps,
    SchedulerSteps,
    native_script,
    scheduler_script,
)
from ddim_core.shipping.snippet import PlainCall, network_snippet, pipeline_snippet
from tasks.checkpoints.memory import checkpoint_in_memory
from tasks.checkpoints.scheduler import scheduler_in
from tasks.images.stored_prompts import stored_prompts
from tasks.shipping.cell import ScoredCell
from tasks.shipping.ready import Ready, guided_at, notes_on_guided, shared_by
from tasks.storage import store

PIXELS_AT_ONCE = 2**15  # of a network's images: eight of 64 x 64, one of 256 x 256
TEXT_PIPELINE = "StableDiffusionPipeline"  # what is drawn natively for prompts


@dataclass(frozen=True, eq=False)
class _Opened:
    """A cell's checkpoint, where it lies, and what the script is told of its network."""

    scored: ScoredCell
    folder: Path
    loaded: Checkpoint
    network: BareNetwork

    @property
    def batch(self) -> int:
        _, height, width = self.loaded.noise_shape
        return max(1, min(len(self.scored.images), PIXELS_AT_ONCE // (height * width)))


def ready_native(scored: ScoredCell) -> Ready:
    """Returns what is written for a cell of the project's own sampler."""
    spec = scored.cell.sampler
    assert isinstance(spec, SamplerSpec)
    if spec.dynamic_threshold is not None:
        raise ValueError("a cell with dynamic_threshold is not shipped; no grid draws one")
    noise = scored.cell.noise
    own = checkpoint_in_memory(scored.checkpoint)
    schedule = NoiseSchedule.from_spec(noise) if noise else own.require_schedule()
    steps = plan(schedule, spec)
    opened = _opened(scored, [step.t for step in steps])
    script = native_script(
        shared_by(scored, opened.folder, opened.loaded.noise_shape, opened.batch),
        opened.network,
        NativeSteps(
            predicts=spec.prediction_type,
            eta=spec.eta,
            sigma_hat=spec.variance == "sigma_hat",
            clip=spec.clip_range if spec.clip else 0.0,
            rederive_eps=spec.rederive_eps or spec.variance == "sigma_hat",
            timesteps=[step.t for step in steps],
            alpha_bar=[step.alpha_bar_t for step in steps],
        ),
    )
    found = expressed(schedule, spec, scheduler_in(scored.cell, scored.checkpoint))
    notes = _notes_on_expressing(spec, found)
    scheduler = found.scheduler if found else None
    return Ready(script, scheduler, _told(opened), _plain(opened, found, notes))


def ready_scheduled(scored: ScoredCell) -> Ready:
    """Returns what is written for a cell of a scheduler of diffusers over a bare network."""
    spec = scored.cell.sampler
    assert isinstance(spec, SchedulerSpec)
    name, own = parse_sampler(spec.sampler), scheduler_in(scored.cell, scored.checkpoint)
    opened = _opened(scored, set_steps(scheduler_for(name, own), name, spec.steps).timesteps)
    scheduler = scheduler_for(name, own)
    kind = type(scheduler).__name__
    require_of_diffusers(kind)
    if learns_variance(scheduler):
        raise ValueError(
            f"a cell of {kind} with variance_type {scheduler.config['variance_type']} is not "
            "shipped, since sample.py asks the network for its noise alone; take another sampler"
        )
    given = set_steps_of(name, kind, spec.steps)
    script = scheduler_script(
        shared_by(scored, opened.folder, opened.loaded.noise_shape, opened.batch),
        opened.network,
        SchedulerSteps(kind, given, spec.eta),
    )
    plain = _plain(opened, Expressed(scheduler, given, spec.eta), [])
    return Ready(script, scheduler, _told(opened), plain)


def _opened(scored: ScoredCell, timesteps: Sequence[float]) -> _Opened:
    guided = guided_at(scored, timesteps)
    folder = store.get_folder(scored.checkpoint)
    loaded = checkpoint_in_memory(scored.checkpoint)
    network = "unet" if (folder / "unet").is_dir() else "."
    kind = str(read_settings(folder / network / "config.json")["_class_name"])
    if kind in BACKBONES and kind != WIDE_TIME:
        raise ValueError(
            f"the checkpoint's network is a {kind}, which diffusers has not, so that a script of "
            "plain diffusers cannot draw with it; draw with the package itself (ddim grid)"
        )
    decoder = next((name for name in DECODER_FOLDERS if (folder / name).is_dir()), "")
    return _Opened(
        scored,
        folder,
        loaded,
        BareNetwork(
            network=network,
            network_class=kind,
            decoder=decoder,
            decoder_class=type(loaded.latent.decoder).__name__ if loaded.latent else "",
            n_classes=0 if loaded.prompts else loaded.n_classes or 0,
            null_label=loaded.null_label or 0,
            prompts=loaded.prompts is not None,
            guidance=scored.cell.sampler.guidance_scale,
            guided=guided,
        ),
    )


def _told(opened: _Opened) -> dict[str, Tensor]:
    """What the first images' prompts are encoded to, and the empty one."""
    encoder, digest = opened.loaded.prompts, opened.scored.cell.prompts
    if encoder is None or digest is None:
        return {}
    prompts = stored_prompts(digest)
    asked = [prompts[k % len(prompts)] for k in range(len(opened.scored.images))]
    with torch.inference_mode():
        return {"prompt_embeds": encoder(asked), "negative_prompt_embeds": encoder([""])}


def _notes_on_expressing(spec: SamplerSpec, found: Expressed | None) -> list[str]:
    if found is None:
        return [
            f"Diffusers has no scheduler that makes these steps ({spec.line}, spacing "
            f"{spec.spacing}): DDIMScheduler goes from t to t - T // S and not along a list, takes "
            "eps from the network also where x0 was clipped, and no other one that was tried adds "
            "this noise. There is no scheduler_config.json; the loop stands in sample.py (`drawn`)."
        ]
    kind, note = type(found.scheduler).__name__, "was found to make the same steps, to rounding"
    if kind == "DDIMScheduler":
        return [f"{kind}, as configured here, {note}."]
    why = "DDIMScheduler has no such variance" if spec.variance == "sigma_hat" else (
        "DDIMScheduler goes from t to t - T // S and not along a list"
    )  # fmt: skip
    return [f"{kind}, as configured here, {note}; {why}."]


def _plain(opened: _Opened, found: Expressed | None, notes: list[str]) -> Plain:
    network, loaded = opened.network, opened.loaded
    notes = [*notes, *notes_on_guided(opened.scored, network.guided)]
    if network.network_class == WIDE_TIME:
        notes = [*notes, "The network is told the time by wider sinusoids than UNet2DModel has, or "
                 "has one number of heads at all levels, so that plain diffusers does not open it; "
                 "sample.py does (`network`)."]  # fmt: skip
    unet = loaded.model.unet.config
    learns = unet["out_channels"] != unet["in_channels"]
    if learns:
        notes = [*notes, "The network predicts a variance besides the noise; sample.py takes its "
                 "first channels alone (`predicted`)."]  # fmt: skip
    form = _form(opened)
    if found is None or learns or network.network_class == WIDE_TIME:
        kind = type(found.scheduler).__name__ if found else ""
        return Plain(kind, "", form, tuple(notes))
    kind, folder = type(found.scheduler).__name__, str(opened.folder)
    eta = found.eta if takes_eta(found.scheduler) else 0.0
    known = inspect.signature(found.scheduler.step).parameters
    if loaded.prompts is not None:
        call = {**found.set_steps, "guidance_scale": network.guidance}
        call |= {"eta": eta} if eta else {}
        if network.guidance < 1.0:
            notes = [*notes, f"{TEXT_PIPELINE} guides only above 1, and this cell has guidance "
                     f"{network.guidance:g}: there the lines draw without guidance."]  # fmt: skip
        snippet = pipeline_snippet(
            PlainCall(
                folder=folder,
                pipeline=TEXT_PIPELINE,
                scheduler=kind,
                absent=(),
                call=call,
                own_steps={},
                eta=0.0,
                dtype=opened.scored.cell.dtype,
                told={"prompt": '"a text"'},
                guided=network.guided,
                asked=STABLE_DIFFUSION if network.guided else None,
            )
        )
    else:
        snippet = network_snippet(
            folder, network, kind, found.set_steps, eta, "generator" in known, loaded.noise_shape
        )
    return Plain(kind, snippet, form, tuple(notes))


def _form(opened: _Opened) -> str:
    network = opened.network
    if network.prompts:
        return (
            "It draws for a prompt, as text, padded or cut to the tokenizer's length; guidance "
            f"{network.guidance:g} leads away from the empty prompt. Image k was scored for prompt "
            "k modulo their number."
        )
    if network.n_classes:
        return (
            f"It draws for a class number 0 to {network.n_classes - 1}; guidance "
            f"{network.guidance:g}. Image k was scored for class k modulo {network.n_classes}."
        )
    return "It draws from noise alone, without prompts and classes."
