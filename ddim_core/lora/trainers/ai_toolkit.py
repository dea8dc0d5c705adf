"""ostris' ai-toolkit: the YAML of one training, `config.process[0]`.

Source: ai-toolkit, config/examples.
"""

from __future__ import annotations

import re
from pathlib import Path

from ddim_core.common.foreign import Content
from ddim_core.lora.trainers.settings import (
    Subset,
    TrainerSettings,
    dropout_of,
    ending_of,
    folder_of,
    largest,
    repeats_of,
    shown,
    squares,
    table,
    tables,
    text_of,
    unused,
    with_trigger,
)
from ddim_core.safe_files.settings import read_settings

NAME = "ai-toolkit"
TITLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TRAINERS = ("sd_trainer", "ui_trainer", "diffusion_trainer")
NOT_DONE = {
    "embedding": "pivotal tuning, which trains embeddings of tokens,",
    "slider": "the training of a slider",
    "adapter": "the training of an adapter",
}
PRECISIONS = {
    "bf16": "bf16", "bfloat16": "bf16", "fp16": "fp16", "float16": "fp16", "fp32": "no",
    "float32": "no", "float": "no",
}  # fmt: skip
TIMESTEPS = {"sigmoid": "logit_normal", "linear": "none"}
# Ours by the name of each part's option there.
OF_NETWORK = {"linear": "rank", "linear_alpha": "alpha", "dropout": "dropout"}
OF_SAVE = {"save_every": "checkpoint_every", "max_step_saves_to_keep": "checkpoint_limit"}
OF_TRAIN = {
    "batch_size": "batch_size", "steps": "steps", "gradient_accumulation_steps": "accumulation",
    "gradient_accumulation": "accumulation", "train_text_encoder": "text_encoder",
    "gradient_checkpointing": "gradient_checkpointing", "lr": "learning_rate",
    "max_grad_norm": "gradient_clip", "noise_offset": "noise_offset", "snr_gamma": "snr_gamma",
    "min_snr_gamma": "snr_gamma", "lr_scheduler": "schedule",
}  # fmt: skip
OF_SAMPLE = {"guidance_scale": "guidance", "sample_steps": "picture_steps"}
# What says how to go about work that is done otherwise here, to the same end.
NO_MATTER = {
    "process": ("type", "training_folder", "sqlite_db_path", "performance_log_every"),
    "network": ("type",),
    "datasets": ("folder_path", "dataset_path", "cache_latents", "cache_latents_to_disk",
                 "caption_ext", "caption_dropout_rate", "default_caption", "num_repeats",
                 "flip_x", "is_reg", "resolution", "trigger_word", "buckets"),
    "train": ("train_unet", "noise_scheduler", "dtype", "timestep_type", "skip_first_sample",
              "disable_sampling"),
    "model": ("name_or_path", "is_flux", "is_v3", "is_xl", "is_v2", "arch"),
    "sample": ("prompts", "samples", "sample_every", "neg", "sampler", "sample_start_step"),
}  # fmt: skip


def read_ai_toolkit(path: Path) -> TrainerSettings:
    """Reads the YAML of a training.

    Raises:
        ValueError: If it is none, or asks for what is not done here.
    """
    settings, where = read_settings(path), path.name
    if "config" not in settings:
        raise ValueError(f"{where} has no config; what ai-toolkit trains from is read")
    config = table(settings, "config", where)
    processes = tables(config, "process", where)
    if len(processes) > 1:
        raise ValueError(f"{where} has {len(processes)} processes; one LoRA is trained at a time")
    process = processes[0]
    parts = {name: table(process, name, where) for name in ("network", "save", "train", "model",
                                                            "sample")}  # fmt: skip
    _require_lora(process, parts, where)
    trigger = text_of(process.get("trigger_word") or "", "trigger_word", where)
    remarks: list[str] = []
    datasets = tables(process, "datasets", where)
    options = _options(parts) | _of_datasets(datasets, where, remarks)
    if prompts := _prompts(parts["sample"], where):
        options["validation_prompts"] = [with_trigger(p, trigger, is_prompt=True) for p in prompts]
    name = config.get("name")
    if isinstance(name, str) and TITLE.fullmatch(name):
        options["title"] = name
    left = unused(process, (*NO_MATTER["process"], *parts, "datasets", "trigger_word"))
    renamed = {"network": OF_NETWORK, "save": OF_SAVE, "train": OF_TRAIN, "sample": OF_SAMPLE}
    for part, given in parts.items():
        known = (*NO_MATTER.get(part, ()), *renamed.get(part, ()))
        left += unused(given, known, f"{part}.")
    for given in datasets:
        left += unused(given, NO_MATTER["datasets"], "datasets.")
    left += _odd_choices(parts["train"])
    subsets = tuple(_subset(given, path, trigger) for given in datasets)
    return TrainerSettings(NAME, subsets, options, tuple(dict.fromkeys(left)), tuple(remarks))


def _require_lora(process: Content, parts: dict[str, Content], where: str) -> None:
    kind = process.get("type")
    if kind not in TRAINERS:
        raise ValueError(f"process.type of {where} is {shown(kind)}; it must be {TRAINERS[0]}")
    for name, what in NOT_DONE.items():
        if process.get(name):
            raise ValueError(f"{where} has {name}: {what} is not done here; take it out")
    if not parts["network"]:
        raise ValueError(f"{where} has no network: it trains a whole model, and here a LoRA is")
    layout = parts["network"].get("type", "lora")
    if layout != "lora":
        raise ValueError(f"network.type of {where} is {shown(layout)}; only lora is trained")
    if parts["train"].get("train_unet", True) is False:
        raise ValueError(
            f"train.train_unet of {where} is off; the network that denoises is trained"
        )


def _options(parts: dict[str, Content]) -> Content:
    """What has one name there and another here, and the same meaning."""
    found: Content = {}
    for part, names in (
        ("network", OF_NETWORK), ("save", OF_SAVE), ("train", OF_TRAIN), ("sample", OF_SAMPLE),
    ):  # fmt: skip
        given = parts[part]
        found |= {ours: given[theirs] for theirs, ours in names.items() if theirs in given}
    train = parts["train"]
    if train.get("dtype") in PRECISIONS:
        found["precision"] = PRECISIONS[train["dtype"]]
    if train.get("timestep_type") in TIMESTEPS:
        found["weighting"] = TIMESTEPS[train["timestep_type"]]
    if "name_or_path" in parts["model"]:
        found["base"] = parts["model"]["name_or_path"]
    return {name: value for name, value in found.items() if value is not None}


def _odd_choices(train: Content) -> list[str]:
    """What is known by name, and of a value that is not."""
    known = {"dtype": PRECISIONS, "timestep_type": TIMESTEPS}
    return [
        f"train.{name} = {shown(train[name])}"
        for name, choices in known.items()
        if train.get(name) is not None and train[name] not in choices
    ]


def _of_datasets(datasets: list[Content], where: str, remarks: list[str]) -> Content:
    """Of several resolutions the largest; images keep their shapes, as they do there."""
    sides: list[int] = []
    for given in datasets:
        told = given.get("resolution", 512)
        sides += [
            squares(side, False, where) for side in (told if isinstance(told, list) else [told])
        ]
    if not sides:
        raise ValueError(f"resolution of {where} is empty; give at least one")
    dropouts = [dropout_of(given, where) for given in datasets]
    return {
        "resolution": largest(sides, "resolution", remarks),
        "buckets": all(given.get("buckets", True) for given in datasets),
        "flip": any(bool(given.get("flip_x")) for given in datasets),
        "caption_dropout": largest(dropouts, "caption_dropout_rate", remarks),
    }


def _subset(given: Content, path: Path, trigger: str) -> Subset:
    where = path.name
    place = given.get("folder_path") or given.get("dataset_path")
    return Subset(
        folder_of(place, "folder_path", path),
        repeats_of(given, where),
        ending_of(given.get("caption_ext") or "txt", "caption_ext", where),
        text_of(given.get("default_caption") or trigger, "default_caption", where),
        trigger=text_of(given.get("trigger_word") or trigger, "trigger_word", where),
        is_class=bool(given.get("is_reg", False)),
    )


def _prompts(sample: Content, where: str) -> list[str]:
    told = sample.get("prompts")
    if told is None:
        of_each = sample.get("samples") or []
        told = [s.get("prompt") for s in of_each if isinstance(s, dict)]
    if not isinstance(told, list) or not all(isinstance(prompt, str) for prompt in told):
        raise ValueError(f"sample.prompts of {where} is {shown(told)}; it must be a list of texts")
    return told
