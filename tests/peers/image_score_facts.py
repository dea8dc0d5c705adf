"""Why numbers of others differ from ours: what docs/scores.md says of resizes and of tokenizers.

    PYTHONPATH=.:PEERS python tests/peers/image_score_facts.py

PEERS has openai-clip, as of `record_image_scores.py`.
"""

from __future__ import annotations

import gzip
import json
import sys
import tempfile
import types
from pathlib import Path
from unittest import mock

import numpy as np
import packaging.version
import torch
from PIL import Image
from torchvision.transforms import functional
from transformers import CLIPImageProcessor, CLIPTokenizer

from ddim_core.image_scores.networks.clip import open_clip
from ddim_core.image_scores.registry import SCORES
from tests.core.image_scores import tiny
from tests.core.image_scores.folders import clip_folder, hps_folder

ODD = (
    "a photo of a cat", "A Photo depicts  two DOGS, in the rain!!", "café naïve, Größe 12.5 µm",
    'it\'s 3:45pm — "quoted" & <tag> &amp; done', "émigré 北京 日本語 テスト",
    "😀 emoji 🚀 party", "a_b-c/d\\e @home #tag $5 100%", "x " * 100, "",
    "  leading and trailing  ", "l’été “smart quotes”…",
    "ＡＢＣ full width", "line\nbreak\ttab",
)  # fmt: skip


def resizes(root: Path) -> None:
    """HPSv2 without antialiasing, and PickScore's pictures by transformers' own processor."""
    score, resize = SCORES["hpsv2"].open(hps_folder(root / "hps")), functional.resize

    def coarse(pixels: torch.Tensor, size: list[int], how: object, antialias: bool) -> torch.Tensor:
        return resize(pixels, size, how, antialias=False)

    for shape in tiny.SHAPES:
        found = score(tiny.pictures(shape), tiny.PROMPTS)
        with mock.patch.object(functional, "resize", coarse):
            moved = np.abs(score(tiny.pictures(shape), tiny.PROMPTS) - found).max()
        print(f"hpsv2 {shape}: {moved / found.std():.1%} of the spread without antialiasing")

    folder = clip_folder(root / "clip")
    network = open_clip(folder, "clip").network
    tokens = CLIPTokenizer.from_pretrained(folder)(
        list(tiny.PROMPTS), padding=True, truncation=True, max_length=tiny.LENGTH,
        return_tensors="pt",
    )  # fmt: skip
    square = {"height": tiny.SIZE, "width": tiny.SIZE}
    processor = CLIPImageProcessor(size={"shortest_edge": tiny.SIZE}, crop_size=square)
    for shape in tiny.SHAPES:
        pictures = [Image.fromarray(picture) for picture in tiny.pictures(shape)]
        pixels = processor(images=pictures, return_tensors="pt").pixel_values
        with torch.no_grad():
            logits = network(pixel_values=pixels, **tokens).logits_per_image.diagonal().numpy()
        found = SCORES["pick-score"].open(folder)(tiny.pictures(shape), tiny.PROMPTS)
        moved = np.abs(logits - found).max()
        print(
            f"pick-score {shape}: {moved:.4f} by transformers' processor, spread {found.std():.2f}"
        )


def tokenizers(root: Path) -> None:
    """CLIP's own tokenizer, which mends a text first, beside transformers' of the same words."""
    stand_in = types.ModuleType("pkg_resources")
    stand_in.__dict__["packaging"] = packaging
    sys.modules["pkg_resources"] = stand_in
    import clip
    from clip.simple_tokenizer import SimpleTokenizer, default_bpe

    (root / "vocab.json").write_text(json.dumps(SimpleTokenizer().encoder))
    words = gzip.decompress(Path(default_bpe()).read_bytes()).decode()
    merges = words.split("\n")[1 : 49152 - 256 - 2 + 1]
    (root / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    ours, end = CLIPTokenizer.from_pretrained(root), 49407
    other = 0
    for text in ODD:
        theirs = clip.tokenize(text, truncate=True)[0].tolist()
        told = ours(text, padding="max_length", truncation=True, max_length=77).input_ids
        if theirs[: theirs.index(end) + 1] != told[: told.index(end) + 1]:
            other += 1
            print(f"other tokens: {text!r}")
    print(f"{other} of {len(ODD)} prompts have other tokens")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        resizes(Path(folder))
        tokenizers(Path(folder))
