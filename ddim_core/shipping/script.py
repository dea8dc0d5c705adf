"""The text of `sample.py`, which draws a cell's first images again without this project.

Its functions lie beside this file, `script.NAME.txt`, and are put together for one of three kinds
of cells; what is known of the cell stands above them as constants.
"""

from __future__ import annotations

import pprint
import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from ddim_core.common.foreign import Keywords
from ddim_core.networks.backbones.wide_time import CLASS_NAME as WIDE_TIME

WIDTH = 100
PLACE = "# CONSTANTS"
INTERVAL = "interval"
CONDITIONS = "conditions.safetensors"


@dataclass(frozen=True)
class Shared:
    """What every script is told.

    Attributes:
        cell: Its digest.
        checkpoint: The folder that is opened where none is given.
        seed: Keys all noise, together with an image's index.
        shape: Of one image's x_T, without the batch.
        n_images: Images 0..n-1 are drawn.
        batch: How many at once; the last batch is filled up.
        dtype: Number format of the networks.
        device: Where the cell was drawn.
    """

    cell: str
    checkpoint: str
    seed: int
    shape: tuple[int, ...]
    n_images: int
    batch: int
    dtype: str
    device: str


@dataclass(frozen=True)
class BareNetwork:
    """A network that a loop of the script asks.

    Attributes:
        network: Its folder within the checkpoint's; "." for a bare one.
        network_class: Its class in diffusers.
        decoder: The folder of what makes pixels of latents; "" where it draws pixels.
        decoder_class: Its class in diffusers.
        n_classes: Image k is of class k mod n; 0 for no classes.
        null_label: The label of no class.
        prompts: Whether it is told of a text, whose embeddings lie in a file beside the script.
        guidance: g of classifier-free guidance; 1 is none.
        guided: At which of its calls; empty for all.
    """

    network: str
    network_class: str
    decoder: str
    decoder_class: str
    n_classes: int
    null_label: int
    prompts: bool
    guidance: float
    guided: tuple[bool, ...] = ()


@dataclass(frozen=True)
class NativeSteps:
    """The project's own sampler.

    Attributes:
        predicts: epsilon, sample or v_prediction.
        eta: Noise fraction.
        sigma_hat: Whether it adds the larger DDPM variance.
        clip: The predicted x0 is clipped to [-clip, clip]; 0 does not.
        rederive_eps: Whether eps is then taken from the clipped x0.
        timesteps: Where the network is asked, falling.
        alpha_bar: Signal power at each of them.
    """

    predicts: str
    eta: float
    sigma_hat: bool
    clip: float
    rederive_eps: bool
    timesteps: list[int]
    alpha_bar: list[float]


@dataclass(frozen=True)
class SchedulerSteps:
    """A scheduler of diffusers over a bare network.

    Attributes:
        scheduler: Its class; its configuration lies beside the script.
        set_steps: What `set_timesteps` is given.
        eta: For a step that takes one.
    """

    scheduler: str
    set_steps: Keywords
    eta: float


@dataclass(frozen=True)
class PipelineCall:
    """A pipeline's own call.

    Attributes:
        pipeline: Its class.
        absent: Its parts that are not there.
        scheduler: Class of the scheduler, whose configuration lies beside the script.
        own_steps: A list of timesteps or sigmas, as `set_timesteps` is given it; else empty.
        eta: For a step that takes one.
        call: Arguments that are the same for all images.
        listed: Names of conditions that are handed as lists, one tensor an image.
        takes_latents: Whether the call takes x_T; else it stands where the call draws its own.
        takes_batch_size: Whether the call is told how many.
        latent_dtype: Number format of x_T.
        loras: Files beside the script that are laid over its networks, and how much of each counts.
        guided: At which of its steps there is guidance; empty for all.
    """

    pipeline: str
    absent: list[str]
    scheduler: str
    own_steps: Keywords
    eta: float
    call: Keywords
    listed: list[str]
    takes_latents: bool
    takes_batch_size: bool
    latent_dtype: str
    loras: list[tuple[str, float]]
    guided: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Asked:
    """How a pipeline's call asks for guidance, so that it can be left out at some steps.

    Attributes:
        doubled, prompts_last: As of `ddim_core.pipelines.guidance.halves.Halves`.
        networks: The pipeline's parts that are asked.
    """

    doubled: tuple[str, ...]
    prompts_last: bool
    networks: tuple[str, ...]


STABLE_DIFFUSION = Asked(("sample", "encoder_hidden_states"), True, ("unet",))
"""How the call of a StableDiffusionPipeline does."""


def native_script(shared: Shared, network: BareNetwork, steps: NativeSteps) -> str:
    """Returns the script of a cell that the project's own sampler drew."""
    return _assembled([shared, network, steps], [*_parts_of(network), "native"])


def scheduler_script(shared: Shared, network: BareNetwork, steps: SchedulerSteps) -> str:
    """Returns the script of a cell that a scheduler of diffusers drew over a bare network."""
    parts = [*_parts_of(network), "streams", "scheduler"]
    return _assembled([shared, network, steps], parts)


def pipeline_script(shared: Shared, call: PipelineCall, asked: Asked | None = None) -> str:
    """Returns the script of a cell that a pipeline's own call drew; `asked` where its guidance is
    left out at some steps."""
    more = [] if call.takes_latents else ["starts"]
    more += [INTERVAL] if asked else []
    records = [shared, call, *filter(None, [asked])]
    return _assembled(records, ["noise", "streams", *more, "pipeline"])


def interval_lines(guided: Sequence[bool], asked: Asked) -> list[str]:
    """Returns lines that define `guide_at_some_steps`, which changes a pipeline, and what it
    reads."""
    known = [_constant("guided", tuple(guided)), *_constants(asked)]
    return [*known, "", "", *_part(INTERVAL).splitlines(), "", ""]


def _parts_of(network: BareNetwork) -> list[str]:
    wide = network.network_class == WIDE_TIME
    return ["noise", "wide_time" if wide else "unet", "network"]


def _assembled(records: Sequence[Any], parts: Sequence[str]) -> str:
    known = "\n".join(line for record in records for line in _constants(record))
    body = "\n\n".join(_part(name) for name in (*parts, "main"))
    top = "".join(line for line in _part("top").splitlines(keepends=True) if _needed(line, body))
    return f"{top.replace(PLACE, known)}\n\n{body}"


def _part(name: str) -> str:
    return Path(__file__).with_name(f"script.{name}.txt").read_text(encoding="utf-8")


def _needed(line: str, body: str) -> bool:
    """Whether a line of the head is wanted: of the imports, those that the functions use."""
    name = re.fullmatch(r"import (\w+)\n", line)
    return name is None or re.search(rf"\b{name[1]}\b", body) is not None


def _constants(record: Any) -> Iterator[str]:
    """A record's values as Python writes them: no text of a stranger is ever code."""
    for field in fields(record):
        yield _constant(field.name, getattr(record, field.name))


def _constant(name: str, value: Any) -> str:
    line = f"{name.upper()} = {value!r}"
    if len(line) <= WIDTH:
        return line
    shown = pprint.pformat(value, width=WIDTH - 4, compact=True, sort_dicts=False)
    return f"{name.upper()} = (\n{textwrap.indent(shown, '    ')}\n)"
