"""A complete Stable Diffusion pipeline made small: text model, U-Net, autoencoder, tokenizer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn

from ddim_core.common.late import late
from ddim_core.networks.building import seeded_weights
from ddim_core.text2image.base_folder import load_pipeline
from ddim_core.text2image.specs import BaseSpec

if TYPE_CHECKING:
    import diffusers
    import transformers
else:
    diffusers = late("diffusers")
    transformers = late("transformers")

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
LATENT_SCALE = 1.5  # brings pixels in [-1, 1] to about unit variance
PAIR_CONSTANT = 256.0


def new_pipeline(
    spec: BaseSpec, captions: Sequence[str], tokenizer: transformers.CLIPTokenizer | None = None
) -> diffusers.StableDiffusionPipeline:
    """Returns an untrained pipeline; without a tokenizer its vocabulary is learnt from captions."""
    tokenizer = tokenizer or caption_tokenizer(captions, spec.vocabulary, spec.max_tokens)
    plain = max(1, len(spec.widths) - spec.text_levels)
    attending = len(spec.widths) - plain
    with seeded_weights(spec.seed):
        text_encoder = transformers.CLIPTextModel(_text_config(spec, tokenizer))
        unet = diffusers.UNet2DConditionModel(
            sample_size=spec.resolution,
            in_channels=3,
            out_channels=3,
            block_out_channels=spec.widths,
            layers_per_block=spec.layers_per_block,
            down_block_types=(
                *["DownBlock2D"] * plain,
                *["CrossAttnDownBlock2D"] * attending,
            ),
            up_block_types=(
                *["CrossAttnUpBlock2D"] * attending,
                *["UpBlock2D"] * plain,
            ),
            cross_attention_dim=spec.text_width,
            attention_head_dim=spec.heads,  # diffusers' name for the number of heads
            norm_num_groups=8,
        )
    return diffusers.StableDiffusionPipeline(
        vae=identity_autoencoder(spec.resolution),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=v_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def grown(spec: BaseSpec, start: Path) -> diffusers.StableDiffusionPipeline:
    """Returns a pipeline that starts from the weights and the words of one that is trained.

    That one has the same resolution, or half of it. What both have is copied; a new outer level
    starts as nothing but averaging on the way down and repeating on the way up, so that the first
    prediction is about that of the smaller network, made larger. Source: progressive growing,
    Karras et al. 2018 (arXiv:1710.10196).

    Args:
        spec: Of a base to grow, its U-Net has one more level in front, as wide as the next.
        start: The folder of a base that `save_base` wrote.

    Raises:
        ValueError: If the two do not fit.
    """
    old = load_pipeline(start)
    pipeline = new_pipeline(spec, (), old.tokenizer)
    grows = old.unet.config.sample_size != spec.resolution
    levels = len(spec.widths)
    copied = {
        _one_level_in(name) if grows else name: value
        for name, value in old.unet.state_dict().items()
    }
    new = ("down_blocks.0.", f"up_blocks.{levels - 2}.upsamplers.", f"up_blocks.{levels - 1}.")
    missing = pipeline.unet.state_dict().keys() - copied.keys()
    try:
        if any(not (grows and name.startswith(new)) for name in missing):
            raise RuntimeError
        pipeline.text_encoder.load_state_dict(old.text_encoder.state_dict())
        pipeline.unet.load_state_dict(copied, strict=False)
    except RuntimeError as error:  # torch's, where shapes differ
        raise ValueError(
            f"the base {start} does not fit: its U-Net's widths must be {spec.widths}, or those "
            "without the first, and its texts the same"
        ) from error
    if grows:
        _pass_through(pipeline.unet)
    return pipeline


def _pass_through(unet: Any) -> None:
    """Makes the outer level average on the way down, repeat on the way up, and nothing else."""
    down, up, last = unet.down_blocks[0], unet.up_blocks[-2], unet.up_blocks[-1]
    binomial = torch.tensor([1.0, 2.0, 1.0]) / 4.0
    centre = torch.tensor([0.0, 1.0, 0.0])
    with torch.no_grad():
        for block in (*down.resnets, *last.resnets):
            _fill(block.conv2, block.conv2.weight.new_zeros(()))
        for conv, line in ((down.downsamplers[0].conv, binomial), (up.upsamplers[0].conv, centre)):
            width = len(conv.weight)
            _fill(conv, torch.eye(width)[:, :, None, None] * line[:, None] * line)
        for block in last.resnets:  # what comes from below comes before the skip
            conv = block.conv_shortcut
            _fill(conv, torch.eye(conv.out_channels, conv.in_channels)[:, :, None, None])


def _fill(conv: Any, weight: torch.Tensor) -> None:
    conv.weight.copy_(weight.expand_as(conv.weight))
    conv.bias.zero_()


def _one_level_in(name: str) -> str:
    """The name in a U-Net with one more level in front; the way up keeps its places."""
    return re.sub(r"^down_blocks\.(\d+)", lambda found: f"down_blocks.{int(found[1]) + 1}", name)


def v_scheduler() -> diffusers.DDIMScheduler:
    """The cosine schedule of a network that predicts v (Salimans and Ho, arXiv:2202.00512)."""
    return diffusers.DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # what the pipeline asks for; trailing spacing does not use it
        timestep_spacing="trailing",
    )


def caption_tokenizer(
    captions: Sequence[str], vocabulary: int, max_tokens: int
) -> transformers.CLIPTokenizer:
    """Learns a byte-pair vocabulary in CLIP's form.

    As in CLIP, the single bytes come first, then the bytes that end a word, then what was merged:
    every text has tokens, and the words of the captions have one each where `vocabulary` allows.
    """
    learner = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    learner.train_from_iterator(
        captions,
        trainers.BpeTrainer(
            vocab_size=vocabulary - 514, end_of_word_suffix=WORD_END, show_progress=False
        ),
    )
    singles = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*singles, *(letter + WORD_END for letter in singles)]
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens += [a + b for a, b in merges]
    vocab = {token: i for i, token in enumerate([*tokens, START, END])}
    return clip_tokenizer(vocab, merges, max_tokens)


def clip_tokenizer(
    vocab: dict[str, int], merges: Sequence[tuple[str, str]], max_tokens: int
) -> transformers.CLIPTokenizer:
    """A tokenizer of these tokens; how merges that are equally common are ordered differs from one
    learning to the next, so whoever goes on with trained weights needs the tokens they know."""
    pairs = [tuple(pair) for pair in merges]
    return transformers.CLIPTokenizer(vocab=vocab, merges=pairs, model_max_length=max_tokens)  # type: ignore[arg-type]


def _text_config(
    spec: BaseSpec, tokenizer: transformers.CLIPTokenizer
) -> transformers.CLIPTextConfig:
    return transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec.text_width,
        intermediate_size=4 * spec.text_width,
        projection_dim=spec.text_width,
        num_hidden_layers=spec.text_layers,
        num_attention_heads=spec.heads,
        max_position_embeddings=spec.max_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def identity_autoencoder(resolution: int) -> diffusers.AutoencoderKL:
    """An AutoencoderKL whose latents are the pixels, in closed form: nothing is trained or lost.

        silu(x) - silu(-x) = x

    Every channel goes in as the pair (x, -x), the residual blocks add nothing, and the pair's
    difference comes out. A pair of large constants K in the same group makes the group norm a
    known scale: the mean is 0 and the variance K^2 / 4 up to x^2 / K^2, about 1e-5. The latents'
    variance is e^-30, so that sampling them changes nothing.
    """
    vae = diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        latent_channels=3,
        block_out_channels=(8,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        layers_per_block=1,
        norm_num_groups=1,
        mid_block_add_attention=False,
        use_quant_conv=False,
        use_post_quant_conv=False,
        sample_size=resolution,
        scaling_factor=LATENT_SCALE,
    )
    with torch.no_grad():
        for name, parameter in vae.named_parameters():
            if ".conv2." in name:  # the end of a residual branch
                parameter.zero_()
        for half in (vae.encoder, vae.decoder):
            _set_pairs(half.conv_in, half.conv_norm_out, half.conv_out)
        if vae.encoder.conv_out.bias is not None:
            vae.encoder.conv_out.bias[3:] = -30.0
    return vae.eval().requires_grad_(False)


def _set_pairs(conv_in: nn.Conv2d, norm: nn.GroupNorm, conv_out: nn.Conv2d) -> None:
    for parameter in (*conv_in.parameters(), *norm.parameters(), *conv_out.parameters()):
        parameter.zero_()
    assert conv_in.bias is not None
    conv_in.bias[6], conv_in.bias[7] = PAIR_CONSTANT, -PAIR_CONSTANT
    norm.weight.fill_(PAIR_CONSTANT / 2.0)
    for channel in range(3):
        for place, sign in ((2 * channel, 1.0), (2 * channel + 1, -1.0)):
            conv_in.weight[place, channel, 1, 1] = sign
            conv_out.weight[channel, place, 1, 1] = sign


def save_base(
    pipeline: diffusers.StableDiffusionPipeline, folder: Path, half: bool = False
) -> None:
    """Writes the pipeline as a folder that `StableDiffusionPipeline.from_pretrained` opens.

    The vocabulary is also written in CLIP's own two files, which older versions read.

    Args:
        pipeline: What is written; its U-Net may be rounded.
        folder: Made if it is not there.
        half: Write the U-Net's weights in float16, which halves the file; they are opened in
            float32.

    Raises:
        ValueError: If a weight is not finite.
    """
    for name in ("unet", "text_encoder"):
        if not all(bool(p.isfinite().all()) for p in getattr(pipeline, name).parameters()):
            raise ValueError(f"the {name} has weights that are not finite; lower the learning_rate")
    if half:
        pipeline.unet.half()
    pipeline.save_pretrained(folder, safe_serialization=True)
    pipeline.unet.float()
    pipeline.tokenizer.backend_tokenizer.model.save(str(folder / "tokenizer"))
