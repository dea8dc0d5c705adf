"""What the files of a pipeline's parts may be called, in the order that diffusers takes them in."""

from __future__ import annotations

from ddim_core.checkpoints.checkpoint import WEIGHTS_NAME
from ddim_core.safe_files.shards import SHARDS_INDEX

NETWORK_FILES = (
    WEIGHTS_NAME + SHARDS_INDEX, WEIGHTS_NAME, WEIGHTS_NAME + ".index.fp16.json",
    WEIGHTS_NAME + ".fp16.index.json", "diffusion_pytorch_model.fp16.safetensors",
    "diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin",
)  # fmt: skip
TEXT_WEIGHTS = "model.safetensors"
TEXT_FILES = (
    TEXT_WEIGHTS + SHARDS_INDEX, TEXT_WEIGHTS, "model.safetensors.index.fp16.json",
    "model.fp16.safetensors", "pytorch_model.bin", "pytorch_model.fp16.bin",
)  # fmt: skip
# What is not averaged, beside what is: Stable Diffusion 1.x has both.
RAW_FILES = (
    "diffusion_pytorch_model.non_ema.safetensors", "diffusion_pytorch_model.non_ema.bin",
)  # fmt: skip
TOKENIZER_FILES = (
    "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
PARTS: dict[str, tuple[str, ...]] = {
    "unet": ("config.json", *NETWORK_FILES, *RAW_FILES),
    "unet_ema": ("config.json", *NETWORK_FILES),
    "vae": ("config.json", *NETWORK_FILES), "vqvae": ("config.json", *NETWORK_FILES),
    "text_encoder": ("config.json", *TEXT_FILES), "tokenizer": TOKENIZER_FILES,
    "scheduler": ("scheduler_config.json",),
}  # fmt: skip
