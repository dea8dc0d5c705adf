"""A Stable Diffusion 1.5 of real shapes and random weights, where its size counts, not its art.

python -m benchmarks.sd15 FOLDER    # 4.3 GB; its tokenizer is that of data/base
"""

from __future__ import annotations

import sys
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from benchmarks.servers import PROJECT

WIDTHS = (320, 640, 1280, 1280)


def build(folder: Path) -> None:
    """Writes the pipeline's folder; the configurations are those of the published model."""
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512,
    )  # fmt: skip
    text = CLIPTextConfig(
        hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        projection_dim=768,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer.from_pretrained(PROJECT / "data" / "base", subfolder="tokenizer"),
        unet=UNet2DConditionModel(
            sample_size=64, cross_attention_dim=768, block_out_channels=WIDTHS, attention_head_dim=8
        ),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
