"""Tiny networks of the image scores, pictures and prompts: the same on every machine and for the
peers, which is why this imports NumPy and torch alone."""

from __future__ import annotations

import json
import string
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SIZE, PATCH, LENGTH = 224, 56, 40
WIDTH, TEXT_WIDTH, LAYERS, EMBED = 128, 64, 2, 32
REWARD_WIDTH, REWARD_TEXT, REWARD_LENGTH = 64, 48, 48
PROMPTS = (
    "a red cat", "two dogs in the rain", "A house, by the sea!", "blue",
    "a very long prompt that says much more than the text transformer ever reads of it",
    "a red cat",
)  # fmt: skip
SHAPES = {"wide": (96, 150), "large": (300, 300), "exact": (SIZE, SIZE), "small": (24, 24)}

CLIP_TOKENS = [*string.ascii_lowercase, *string.punctuation, *string.digits]
START, END = "<|startoftext|>", "<|endoftext|>"
CLIP_VOCABULARY = {
    token: i
    for i, token in enumerate([*CLIP_TOKENS, *(t + "</w>" for t in CLIP_TOKENS), START, END])
}
BERT_VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CLIP_TOKENS, *("##" + t for t in CLIP_TOKENS),
]  # fmt: skip
MED_CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": REWARD_TEXT, "initializer_range": 0.02,
    "intermediate_size": 96, "layer_norm_eps": 1e-12, "max_position_embeddings": REWARD_LENGTH,
    "model_type": "bert", "num_attention_heads": 4, "num_hidden_layers": 2, "pad_token_id": 0,
    "type_vocab_size": 2, "vocab_size": len(BERT_VOCABULARY) + 2, "encoder_width": REWARD_WIDTH,
    "add_cross_attention": True,
}  # fmt: skip


def pictures(shape: str, n: int = len(PROMPTS)) -> np.ndarray:
    """Smooth blots with some grain, uint8 [n, h, w, 3]."""
    height, width = SHAPES[shape]
    stream = np.random.RandomState(zlib.crc32(shape.encode()))
    down, across = np.mgrid[0:1:height * 1j, 0:1:width * 1j]  # fmt: skip
    out = np.empty((n, height, width, 3), np.uint8)
    for picture in out:
        for channel in range(3):
            a, b, c, d = stream.uniform(1.0, 9.0, 4)
            wave = np.sin(a * down + b) + np.cos(c * across + d)
            grain = stream.uniform(-0.3, 0.3, (height, width))
            picture[:, :, channel] = np.clip(127.5 + 60.0 * (wave + grain), 0, 255)
    return out


def weights(names: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Fills each tensor from a stream of its own name, which NumPy promises never to change."""
    state = {}
    for name, shape in names.items():
        drawn = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
        if len(shape) > 1 and "embed" not in name and "cls_token" not in name:
            drawn = 1.5 * drawn / np.sqrt(np.prod(shape[1:]))
        elif len(shape) == 1:
            is_norm = any(part in name for part in ("ln_", "norm", "Norm"))
            drawn = 0.1 * drawn + (1.0 if is_norm and name.endswith("weight") else 0.0)
        state[name] = torch.from_numpy(np.asarray(drawn, np.float32))
    return state


def open_clip_state() -> dict[str, Tensor]:
    """A CLIP in open_clip's layout."""
    names: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (WIDTH,), "visual.conv1.weight": (WIDTH, 3, PATCH, PATCH),
        "visual.positional_embedding": ((SIZE // PATCH) ** 2 + 1, WIDTH),
        "visual.proj": (WIDTH, EMBED), "token_embedding.weight": (len(CLIP_VOCABULARY), TEXT_WIDTH),
        "positional_embedding": (LENGTH, TEXT_WIDTH), "text_projection": (TEXT_WIDTH, EMBED),
    }  # fmt: skip
    for norm, width in (
        ("visual.ln_pre", WIDTH), ("visual.ln_post", WIDTH), ("ln_final", TEXT_WIDTH)
    ):  # fmt: skip
        names |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for tower, width in (("visual.", WIDTH), ("", TEXT_WIDTH)):
        for layer in range(LAYERS):
            block = f"{tower}transformer.resblocks.{layer}"
            for part, shape in (
                ("ln_1", (width,)), ("ln_2", (width,)), ("attn.in_proj_", (3 * width, width)),
                ("attn.out_proj", (width, width)), ("mlp.c_fc", (4 * width, width)),
                ("mlp.c_proj", (width, 4 * width)),
            ):  # fmt: skip
                dot = "" if part.endswith("_") else "."
                names[f"{block}.{part}{dot}weight"] = shape
                names[f"{block}.{part}{dot}bias"] = shape[:1]
    return weights(names) | {"logit_scale": torch.tensor(2.6592)}


def head_state(width: int = EMBED, prefix: str = "layers.") -> dict[str, Tensor]:
    """Five linear layers."""
    widths = [width, 1024, 128, 64, 16, 1]
    names: dict[str, tuple[int, ...]] = {}
    for place, n_in, n_out in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        names[f"{prefix}{place}.weight"] = (n_out, n_in)
        names[f"{prefix}{place}.bias"] = (n_out,)
    return weights(names)


def reward_state() -> dict[str, Tensor]:
    """ImageReward: BLIP's pictures and texts, and linear layers."""
    vision, text, hidden = REWARD_WIDTH, REWARD_TEXT, MED_CONFIG["intermediate_size"]
    names: dict[str, tuple[int, ...]] = {}

    def layer(name: str, n_out: int, n_in: int) -> None:
        names.update({f"{name}.weight": (n_out, n_in), f"{name}.bias": (n_out,)})

    def norm(name: str, width: int) -> None:
        names.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    seen = "blip.visual_encoder"
    names[f"{seen}.cls_token"] = (1, 1, vision)
    names[f"{seen}.pos_embed"] = (1, (SIZE // PATCH) ** 2 + 1, vision)
    names[f"{seen}.patch_embed.proj.weight"] = (vision, 3, PATCH, PATCH)
    names[f"{seen}.patch_embed.proj.bias"] = (vision,)
    for i in range(LAYERS):
        block = f"{seen}.blocks.{i}"
        norm(f"{block}.norm1", vision)
        norm(f"{block}.norm2", vision)
        layer(f"{block}.attn.qkv", 3 * vision, vision)
        layer(f"{block}.attn.proj", vision, vision)
        layer(f"{block}.mlp.fc1", 4 * vision, vision)
        layer(f"{block}.mlp.fc2", vision, 4 * vision)
    norm(f"{seen}.norm", vision)
    told = "blip.text_encoder"
    names[f"{told}.embeddings.word_embeddings.weight"] = (MED_CONFIG["vocab_size"], text)
    names[f"{told}.embeddings.position_embeddings.weight"] = (REWARD_LENGTH, text)
    norm(f"{told}.embeddings.LayerNorm", text)
    for i in range(LAYERS):
        block = f"{told}.encoder.layer.{i}"
        for attention, width in (("attention", text), ("crossattention", vision)):
            layer(f"{block}.{attention}.self.query", text, text)
            layer(f"{block}.{attention}.self.key", text, width)
            layer(f"{block}.{attention}.self.value", text, width)
            layer(f"{block}.{attention}.output.dense", text, text)
            norm(f"{block}.{attention}.output.LayerNorm", text)
        layer(f"{block}.intermediate.dense", hidden, text)
        layer(f"{block}.output.dense", text, hidden)
        norm(f"{block}.output.LayerNorm", text)
    layer("blip.vision_proj", 256, vision)
    layer("blip.text_proj", 256, text)
    positions = {f"{told}.embeddings.position_ids": torch.arange(REWARD_LENGTH)[None]}
    return weights(names) | positions | head_state(text, "mlp.layers.")


def letters(text: str, length: int = LENGTH) -> list[int]:
    """CLIP's tokens of a text by a vocabulary of letters without merges, cut and padded with 0."""
    words = "".join(c if c.isalnum() else f" {c} " for c in text.lower()).split()
    told = [CLIP_VOCABULARY[t] for word in words for t in [*word[:-1], word[-1] + "</w>"]]
    ids = [CLIP_VOCABULARY[START], *told[: length - 2], CLIP_VOCABULARY[END]]
    return ids + [0] * (length - len(ids))


def write_clip_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps(CLIP_VOCABULARY))
    (folder / "merges.txt").write_text("#version: 0.2\n")


def write_bert_tokenizer(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(BERT_VOCABULARY) + "\n")
