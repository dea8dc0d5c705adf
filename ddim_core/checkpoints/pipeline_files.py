"""What the files of a pipeline's parts may be called, in the order that diffusers takes them in;
and those of a part that are there."""

from __future__ import annotations

from pathlib import Path

from ddim_core.checkpoints.checkpoint import WEIGHTS_NAME
from ddim_core.checkpoints.weight_files import STEMS, has_plain, variants_in
from ddim_core.common.plain_files import is_there
from ddim_core.safe_files.shards import SHARDS_INDEX, is_index, shards_in

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


def present(folder: Path, part: str) -> dict[str, Path]:
    """Returns the files of a pipeline's part that a folder has, shards among them, by their place
    in the pipeline."""
    there = {f"{part}/{name}": folder / name for name in PARTS[part] if is_there(folder / name)}
    stems = STEMS[1:] if part == "text_encoder" else STEMS[:1]
    if f"{part}/config.json" in there and not has_plain(folder, stems):
        there |= {f"{part}/{name}": file for name, file in variants_in(folder, stems).items()}
    indices = [path for path in there.values() if is_index(path)]
    return there | {
        f"{part}/{shard.name}": shard for index in indices for shard in shards_in(index)
    }
