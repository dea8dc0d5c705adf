"""A row of the table of results: its columns, what its cell is called, its numbers in words."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Protocol

from ddim_core.common.columns import Moment, Timesteps, column


@dataclass(frozen=True, kw_only=True)
class CellRow:
    """One scored cell. Rows of older versions have None in what these did not know.

    What the scores mean is said in `ddim_core.scores.cell_score`, and those of images one by one in
    `ddim_core.image_scores`. Of the latter JSON says, by column, the digest of all that decides
    them (`image_scores`: others are not compared) and the artefacts of their numbers, shard by
    shard (`image_score_shards`). Their `_leave_one_out` leave out groups of
    `image_score_group_sizes` images, which are `group_sizes` where no prompt has several images.
    `floor` says in JSON, by measure, the interval of held-out real images: what a grid's usual
    margin is half of.
    """

    cell_digest: str
    checkpoint_digest: str
    weights_digest: str
    reference_digest: str
    extractor_digest: str
    code_digest: str
    checkpoint: str = column("shared")
    dataset: str = column("shared")
    split: str = column("shared")
    extractor: str = column("shared")
    resize: str = column("shared")
    data_resize: str
    extractor_weights_digest: str | None
    layer: str | None
    native_size: str | None
    statistics_digest: str
    protocol: str
    training_step: int | None = column("shared")
    weights: str | None = column("parameter")
    sampler: str | None = column("parameter")
    scheduler_config: str | None
    pipeline: str | None = column("shared")
    loras: str | None = column("parameter")
    steps: int = column("parameter")
    eta: float = column("parameter")
    variance: str = column("parameter")
    spacing: str = column("shared")
    prediction_type: str = column("parameter")
    noise_schedule: str = column("parameter")
    overrides: str = column("parameter")
    prompts_digest: str | None = column("parameter")
    clip: bool = column("parameter")
    guidance_scale: float = column("parameter")
    guidance_interval: str | None = column("parameter")
    guidance_channels: int | None = column("parameter")
    guide: str | None = column("parameter")
    guide_digest: str | None
    timesteps: Timesteps
    sigmas: list[float] | None
    seed: int = column("shared")
    n_images: int = column("shared")
    n_reference: int | None = column("shared")
    n_features: int
    shard_size: int = column("shared")
    resolution: int = column("shared")
    fid: float = column("metric")
    fid_low: float | None = column("metric")
    fid_high: float | None = column("metric")
    fid_inf: float | None = column("metric")
    fid_inf_low: float | None = column("metric")
    fid_inf_high: float | None = column("metric")
    fid_bias: float | None
    fid_population: float | None = column("metric")
    fid_population_low: float | None
    fid_population_high: float | None
    carried_by: float | None
    tail_index: float | None
    directions: float | None
    curved: float | None
    duplicates: int | None
    near_duplicates: int | None
    memorised: int | None
    fid_leave_one_out: list[float]
    fid_inf_leave_one_out: list[float] | None
    group_sizes: list[int]
    kid: float | None = column("metric")
    kid_se: float | None
    kid_low: float | None
    kid_high: float | None
    kid_std: float | None = column("metric")
    kid_subset_size: int | None
    precision: float | None = column("metric")
    recall: float | None = column("metric")
    density: float | None = column("metric")
    density_low: float | None
    density_high: float | None
    coverage: float | None = column("metric")
    coverage_low: float | None
    coverage_high: float | None
    vendi: float | None = column("metric")
    vendi_low: float | None
    vendi_high: float | None
    inception_score: float | None
    inception_score_std: float | None
    cmmd: float | None
    cmmd_low: float | None
    cmmd_high: float | None
    class_accuracy: float | None = column("metric")
    class_accuracy_low: float | None
    class_accuracy_high: float | None
    per_class: str | None
    clip_score: float | None = column("metric")
    clip_score_low: float | None = column("metric")
    clip_score_high: float | None = column("metric")
    clip_score_leave_one_out: list[float] | None
    pick_score: float | None = column("metric")
    pick_score_low: float | None = column("metric")
    pick_score_high: float | None = column("metric")
    pick_score_leave_one_out: list[float] | None
    hpsv2: float | None = column("metric")
    hpsv2_low: float | None = column("metric")
    hpsv2_high: float | None = column("metric")
    hpsv2_leave_one_out: list[float] | None
    image_reward: float | None = column("metric")
    image_reward_low: float | None = column("metric")
    image_reward_high: float | None = column("metric")
    image_reward_leave_one_out: list[float] | None
    aesthetic: float | None = column("metric")
    aesthetic_low: float | None = column("metric")
    aesthetic_high: float | None = column("metric")
    aesthetic_leave_one_out: list[float] | None
    image_scores: str | None = column("parameter")
    image_score_shards: str | None
    image_score_prompts: int | None
    image_score_group_sizes: list[int] | None
    floor: str | None
    nfe: int = column("metric")
    sample_seconds: float = column("metric")
    images_per_second: float = column("metric")
    device: str
    dtype: str = column("parameter")
    images_at_once: int | None
    compiled: bool | None
    image_shards: list[str]
    created_at: Moment


def floor_text(floor: Any) -> str | None:
    """Returns the column `floor` of a score of held-out real images; None of none."""
    ends = {
        name: [getattr(floor, f"{name}_{end}", None) for end in ("low", "high")]
        for name in ("fid", "fid_inf")
    }
    known = {name: both for name, both in ends.items() if None not in both}
    return json.dumps(known) if known else None


def floor_interval(row: Any, measure: str) -> tuple[float, float] | None:
    """Returns the interval of held-out real images by a measure, as a row says; None if it does
    not, or of what another program wrote there."""
    found: Any = dict(_by_column(getattr(row, "floor", None))).get(measure)
    try:
        low, high = map(float, found)
    except (ValueError, TypeError, OverflowError):
        return None
    return (low, high) if -math.inf < low <= high < math.inf else None


DDIM, SIGMA_HAT = "ddim", "sigma-hat"


class Setting(Protocol):
    """What has a place in a grid: S, and its line. Some clip, or are guided, besides."""

    @property
    def steps(self) -> int: ...
    @property
    def eta(self) -> float: ...
    @property
    def variance(self) -> str: ...


def sampler_of(row: Setting) -> str:
    """Names a row's sampler; rows of versions that had but one say nothing of it."""
    named = getattr(row, "sampler", None)
    return named or (SIGMA_HAT if row.variance == "sigma_hat" else DDIM)


def is_ours(row: Setting) -> bool:
    """Tells whether a row was drawn by the project's own sampler, and not by one of diffusers."""
    return not getattr(row, "scheduler_config", None)


def place_of(row: Setting) -> str:
    """What stands beside S where one cell of a grid is chosen: `0.5`, `sigma-hat`, `unipc`."""
    if is_ours(row):
        return SIGMA_HAT if row.variance == "sigma_hat" else f"{row.eta:g}"
    return f"{sampler_of(row)},{row.eta:g}" if row.eta else sampler_of(row)


def line_name(row: Setting) -> str:
    """Names a row's line in the grid: its sampler, or eta where that is DDIM; whether it clips;
    its guidance."""
    notes = ["clips"] if getattr(row, "clip", False) else []
    if is_ours(row):
        line = SIGMA_HAT if row.variance == "sigma_hat" else f"eta = {row.eta:g}"
    else:
        line = sampler_of(row)
        notes += [f"eta = {row.eta:g}"] if row.eta else []
    scale = getattr(row, "guidance_scale", None)
    notes += [f"guidance {scale:g}{_where_guided(row)}"] if scale not in (None, 1.0) else []
    notes += _laid(row)
    return f"{line} ({', '.join(notes)})" if notes else line


def interval_text(interval: tuple[float, float] | None) -> str | None:
    """Writes the noise levels between which a cell is guided, as `0.1,0.7`; None for everywhere."""
    return None if interval is None else ",".join(f"{level:.12g}" for level in interval)


def _where_guided(row: Setting) -> str:
    interval, channels = (
        getattr(row, f"guidance_{name}", None) for name in ("interval", "channels")
    )
    of = f" of {channels} channels" if channels else ""
    of += f" in [{interval}]" if interval else ""
    guide = getattr(row, "guide", None)
    return f"{of} by {guide}" if guide else of


@dataclass(frozen=True)
class LaidLora:
    """A LoRA file over a row's pipeline: its name, the digest of its bytes, how much counts."""

    name: str
    digest: str
    scale: float


def loras_of(row: Setting) -> tuple[LaidLora, ...]:
    """Returns the LoRA files over a row's pipeline; none of what another program wrote there."""
    try:
        told = json.loads(getattr(row, "loras", None) or "[]")
        return tuple(LaidLora(str(name), str(d), float(scale)) for name, d, scale in told)
    except (ValueError, TypeError, RecursionError):
        return ()


def score_digests(row: CellRow) -> dict[str, str]:
    """By the column of each score of images that a row has: the digest of all that decides it."""
    return {str(column): str(digest) for column, digest in _by_column(row.image_scores)}


def score_shards(row: CellRow) -> dict[str, list[str]]:
    """By column: the artefacts of a row's numbers, one an image, in order of image index."""
    return {str(column): list(shards) for column, shards in _by_column(row.image_score_shards)}


def _by_column(text: str | None) -> list[tuple[object, Any]]:
    """The entries of a column's JSON; none of what another program wrote there."""
    try:
        told = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return []
    return list(told.items()) if isinstance(told, dict) else []


def _laid(row: Setting) -> list[str]:
    """LoRA files in words; what another program wrote there stands as it is."""
    said = getattr(row, "loras", None)
    found = loras_of(row)
    if said and said != "[]" and not found:
        return [str(said)]
    return [f"{lora.name.removesuffix('.safetensors')} {lora.scale:g}" for lora in found]


def cell_name(row: Setting) -> str:
    return f"S = {row.steps}, {line_name(row)}"


def with_interval(
    value: float | None, low: float | None, high: float | None, digits: int = 2
) -> str:
    """Writes a score with its 95 % interval."""
    if value is None:
        return "not identifiable"
    if low is None or high is None:
        return f"{value:.{digits}f} [too few images for an interval]"
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
