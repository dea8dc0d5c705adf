"""The commands `ddim lora style` and `ddim lora subject`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli_options import numbers, one_sentence, option, require_writable

lora = typer.Typer(help="Train a LoRA: a style or a subject.", no_args_is_help=True)

Base = Annotated[
    str | None, option("Stable Diffusion folder (1.x, 2.x, XL) or hub id; none: the embedded one.")
]
Title = Annotated[str | None, option("Names the files and the registered model.")]
Licence = Annotated[str | None, option("Licence of the images, for the model card.")]
Resolution = Annotated[int | None, option("Side in pixels [the base's own].")]
Buckets = Annotated[bool | None, option("Keep images' shapes: sizes of equal area [off].")]
Flip = Annotated[bool | None, option("Mirror half of the images [off].")]
Crops = Annotated[int | None, option("Random cuts of each image; 0 cuts out the centre [0].")]
Rank = Annotated[int | None, option("Of the LoRA [4; embedded base 8].")]
Alpha = Annotated[float | None, option("Scaling is alpha / rank [rank].")]
Dropout = Annotated[float | None, option("Of the LoRA's inputs, in [0, 1) [0].")]
Targets = Annotated[
    str | None,
    option("attention, feed-forward, convolutions, or ends of layer names [attention]."),
]
Rslora = Annotated[bool | None, option("Scaling alpha / sqrt(rank) [off].")]
Dora = Annotated[bool | None, option("Weight-decomposed LoRA [off].")]
TextEncoder = Annotated[bool | None, option("A LoRA of the text encoder too [off].")]
Steps = Annotated[int | None, option("Optimiser steps [500].")]
BatchSize = Annotated[int | None, option("Images per forward [4].")]
Accumulation = Annotated[int | None, option("Forwards per step [1].")]
Rate = Annotated[float | None, option("Peak learning rate [1e-4].")]
TextRate = Annotated[float | None, option("Of the text encoder's LoRA [learning rate].")]
Schedule = Annotated[
    str | None,
    option(
        "constant, constant_with_warmup, linear, cosine, cosine_with_restarts, polynomial "
        "[constant]."
    ),
]
Warmup = Annotated[int | None, option("Steps of linear rise of the learning rate [0].")]
Cycles = Annotated[int | None, option("Restarts of cosine_with_restarts [1].")]
Decay = Annotated[float | None, option("Weight decay of AdamW [0.01].")]
Clip = Annotated[float | None, option("Largest gradient norm; 0 is no limit [1].")]
Precision = Annotated[str | None, option("no (float32), fp16 or bf16 [no].")]
Gamma = Annotated[float | None, option("Min-SNR weighting, such as 5 [off].")]
Offset = Annotated[float | None, option("Noise offset, such as 0.05 [0].")]
CaptionDropout = Annotated[float | None, option("Share of captions left out, in [0, 1) [0].")]
Every = Annotated[int | None, option("Steps between kept weights; 0: only the last [0].")]
Limit = Annotated[int | None, option("How many of these are kept; 0: all [0].")]
Validation = Annotated[
    list[str] | None, option("A prompt to draw at every kept step; may be repeated.")
]
PictureSteps = Annotated[int | None, option("Sampling steps of pictures [30; embedded 25].")]
Guidance = Annotated[float | None, option("Guidance of pictures [7.5; embedded base 2].")]
Scales = Annotated[
    str | None, option("Scales to score; 0 alone: none [0,0.5,1; embedded 0,0.25,...,1.25].")
]
ScorePrompt = Annotated[
    list[str] | None, option("A prompt to score that is not trained on; may be repeated.")
]
ValidationData = Annotated[
    str | None, option("Captioned images that are not trained on, for the validation loss.")
]
ClipFolder = Annotated[str | None, option("CLIP folder or hub id, for CLIP-T and CLIP-I.")]
DinoFolder = Annotated[str | None, option("DINO or DINOv2 folder or hub id.")]
Seed = Annotated[int | None, option("Keys everything random [0].")]
Device = Annotated[str | None, option("cpu, or cuda (untested) [cpu].")]
Threads = Annotated[int | None, option("Torch threads [2].")]
Processes = Annotated[int | None, option("Processes that share each batch, by accelerate [1].")]
Checkpointing = Annotated[bool | None, option("Gradient checkpointing: less memory [off].")]


@lora.command()
def style(
    base: Base = None,
    data: Annotated[
        str | None,
        option("Captioned images: folder, Parquet file or hub id; none: the embedded style."),
    ] = None,
    title: Title = None,
    data_licence: Licence = None,
    resolution: Resolution = None,
    buckets: Buckets = None,
    flip: Flip = None,
    crops: Crops = None,
    rank: Rank = None,
    alpha: Alpha = None,
    dropout: Dropout = None,
    targets: Targets = None,
    rslora: Rslora = None,
    dora: Dora = None,
    text_encoder: TextEncoder = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    accumulation: Accumulation = None,
    learning_rate: Rate = None,
    text_learning_rate: TextRate = None,
    schedule: Schedule = None,
    warmup_steps: Warmup = None,
    cycles: Cycles = None,
    weight_decay: Decay = None,
    gradient_clip: Clip = None,
    precision: Precision = None,
    snr_gamma: Gamma = None,
    noise_offset: Offset = None,
    caption_dropout: CaptionDropout = None,
    checkpoint_every: Every = None,
    checkpoint_limit: Limit = None,
    validation_prompt: Validation = None,
    picture_steps: PictureSteps = None,
    guidance: Guidance = None,
    scales: Scales = None,
    score_prompt: ScorePrompt = None,
    validation_data: ValidationData = None,
    clip: ClipFolder = None,
    dino: DinoFolder = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    processes: Processes = None,
    gradient_checkpointing: Checkpointing = None,
) -> None:
    """Train a style on captioned images, check it, and export it for diffusers and web UIs."""
    _run("style", dict(locals()))


@lora.command()
def subject(
    base: Base = None,
    data: Annotated[
        str | None, option("Folder of 3 to 6 images of the subject; none: the embedded one.")
    ] = None,
    instance_prompt: Annotated[
        str | None, option("Caption of every image, such as 'a photo of sks cat'.")
    ] = None,
    instance_token: Annotated[str | None, option("Its word for the subject [sks].")] = None,
    class_prompt: Annotated[
        str | None, option("Such as 'a photo of a cat' [the captions without the token].")
    ] = None,
    prior: Annotated[
        bool | None, typer.Option("--prior/--no-prior", help="Prior preservation [on].")
    ] = None,
    class_images: Annotated[int | None, option("How many are drawn [100; embedded 40].")] = None,
    prior_weight: Annotated[float | None, option("Their weight in the loss [1].")] = None,
    title: Title = None,
    data_licence: Licence = None,
    resolution: Resolution = None,
    buckets: Buckets = None,
    flip: Flip = None,
    crops: Crops = None,
    rank: Rank = None,
    alpha: Alpha = None,
    dropout: Dropout = None,
    targets: Targets = None,
    rslora: Rslora = None,
    dora: Dora = None,
    text_encoder: TextEncoder = None,
    steps: Steps = None,
    batch_size: BatchSize = None,
    accumulation: Accumulation = None,
    learning_rate: Rate = None,
    text_learning_rate: TextRate = None,
    schedule: Schedule = None,
    warmup_steps: Warmup = None,
    cycles: Cycles = None,
    weight_decay: Decay = None,
    gradient_clip: Clip = None,
    precision: Precision = None,
    snr_gamma: Gamma = None,
    noise_offset: Offset = None,
    caption_dropout: CaptionDropout = None,
    checkpoint_every: Every = None,
    checkpoint_limit: Limit = None,
    validation_prompt: Validation = None,
    picture_steps: PictureSteps = None,
    guidance: Guidance = None,
    scales: Scales = None,
    score_prompt: ScorePrompt = None,
    validation_data: ValidationData = None,
    clip: ClipFolder = None,
    dino: DinoFolder = None,
    seed: Seed = None,
    device: Device = None,
    threads: Threads = None,
    processes: Processes = None,
    gradient_checkpointing: Checkpointing = None,
) -> None:
    """Train a LoRA on a few images of one subject (DreamBooth), check it, and export it."""
    _run("subject", dict(locals()))


def _run(kind: str, asked: dict[str, Any]) -> None:
    asked["validation_prompts"] = asked.pop("validation_prompt") or None
    asked["score_prompts"] = asked.pop("score_prompt") or None
    asked["scales"] = numbers(asked["scales"]) if asked["scales"] else None
    targets = asked["targets"]
    asked["targets"] = [t.strip() for t in targets.split(",") if t.strip()] if targets else None
    given = {name: value for name, value in asked.items() if value is not None}
    with one_sentence():
        require_writable()  # before Prefect is imported, which makes its home there
        from flows.asked import with_defaults
        from flows.lora_asked import RECIPES, require_plain

        flow = f"lora_{kind}"
        asked = with_defaults(flow, given)
        spec, _ = require_plain(asked, RECIPES[kind])
        from flows import waiting
        from flows.running import run

        of, base = asked["data"] or "the embedded images", asked["base"] or "the embedded base"
        line = f"lora {kind}: {spec.steps} steps on {of}, {base}; then its scorecard"
        with waiting.shown(line):
            result = run(flow, given, f"{flow}_plan")
        _show(result)


def _show(result: dict[str, Any]) -> None:
    training = result["training"]
    typer.echo(
        f"\ntrained: {training['steps']} steps in {training['seconds']:.0f} s, "
        f"peak memory {training['peak_memory_bytes'] / 2**30:.2f} GiB"
    )
    for layout, gate in result["gate"].items():
        typer.echo(
            f"reloaded as {layout}: largest difference of a weight "
            f"{gate['largest_weight_difference']:g}, of a pixel "
            f"{gate['largest_pixel_difference']:g} of 255"
        )
    typer.echo(f"LoRA:     {result['folder']} (files, pictures, model card)")
    if result["report"]:
        typer.echo("")
        for sentence in result["reading"]:
            typer.echo(sentence)
        typer.echo(f"\nreport:   {result['report']}")
        typer.echo(f"table:    {result['table']} (Parquet)")
