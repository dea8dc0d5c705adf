"""The scores of images beside what their authors' own code says of the same tiny networks
(`tests/peers/record_image_scores.py`), preprocessing included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from ddim_core.image_scores import clip_score
from ddim_core.image_scores.networks.clip import open_clip
from ddim_core.image_scores.networks.pictures import long_side_padded
from ddim_core.image_scores.registry import SCORES
from tests.core.image_scores import tiny
from tests.core.image_scores.folders import (
    aesthetic_folder,
    clip_folder,
    hps_folder,
    reward_folder,
)

GOLDEN = Path(__file__).parents[2] / "golden" / "image_scores.npz"
FOLDERS = {
    "clip-score": clip_folder, "hpsv2": hps_folder, "image-reward": reward_folder,
    "aesthetic": aesthetic_folder,
}  # fmt: skip
# Float32 networks of two layers, whose sums other libraries take in another order: 2.5e-6 of the
# largest number was measured at worst (aesthetic). The nearest mistake, HPSv2 without antialiasing,
# moves it by 1e-2 of the largest, and a cut instead of padding on wide pictures by 0.4.
RELATIVE = 2e-5


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


@pytest.mark.parametrize("name", FOLDERS)
def test_score_is_its_authors_own(name: str, tmp_path: Path) -> None:
    score = SCORES[name].open(FOLDERS[name](tmp_path / "made"))
    with np.load(GOLDEN) as golden:
        for shape in tiny.SHAPES:
            expected = golden[f"{SCORES[name].column}/{shape}"]
            close(score(tiny.pictures(shape), tiny.PROMPTS), expected)


def test_torchmetrics_score_is_40_times_ours_without_the_prefix(tmp_path: Path) -> None:
    score = clip_score.opened(clip_folder(tmp_path / "made"), prefix="")
    with np.load(GOLDEN) as golden:
        expected = golden["torchmetrics/small"]
    # It cuts a prompt that is too long without its last token, and so reads another vector of it.
    whole = [i for i, prompt in enumerate(tiny.PROMPTS) if len(prompt) < tiny.LENGTH]
    found = 40.0 * score(tiny.pictures("small"), tiny.PROMPTS)
    close(found[whole], expected[whole])


def test_pick_score_is_its_cards_snippet_by_transformers_in_both_layouts(tmp_path: Path) -> None:
    """softmax(logit_scale.exp() (text @ image.T)) over two pictures, as the card has it."""
    foreign = clip_folder(tmp_path / "open_clip")
    network = open_clip(foreign, "pick-score").network
    own = tmp_path / "transformers"
    network.save_pretrained(own)
    tiny.write_clip_tokenizer(own)
    pictures = tiny.pictures("large")[:2]
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": tiny.SIZE}, crop_size={"height": tiny.SIZE, "width": tiny.SIZE}
    )
    pixels = processor(images=[Image.fromarray(x) for x in pictures], return_tensors="pt")
    tokens = CLIPTokenizer.from_pretrained(own)(
        "a red cat", padding=True, truncation=True, max_length=tiny.LENGTH, return_tensors="pt"
    )
    with torch.no_grad():
        image = network.get_image_features(**pixels).pooler_output
        text = network.get_text_features(**tokens).pooler_output
        image, text = (x / torch.norm(x, dim=-1, keepdim=True) for x in (image, text))
        expected = (network.logit_scale.exp() * (text @ image.T)[0]).softmax(dim=-1)
    for folder in (own, foreign):
        found = SCORES["pick-score"].open(folder)(pictures, ["a red cat"] * 2)
        close(np.exp(found) / np.exp(found).sum(), expected.numpy())


def test_an_image_is_judged_alike_whatever_stands_beside_it(tmp_path: Path) -> None:
    score = SCORES["pick-score"].open(clip_folder(tmp_path / "made"))
    pictures = np.concatenate([tiny.pictures("small")] * 2)
    prompts = [*tiny.PROMPTS, *reversed(tiny.PROMPTS)]
    whole = score(pictures, prompts)
    np.testing.assert_array_equal(whole[5:7], score(pictures[5:7], prompts[5:7]))


def test_an_image_is_judged_alike_on_a_card(tmp_path: Path) -> None:
    score = SCORES["pick-score"].open(clip_folder(tmp_path / "made"))
    pictures, prompts = np.concatenate([tiny.pictures("small")] * 2), [*tiny.PROMPTS] * 2
    before = score(pictures, prompts)
    score.to_card("cpu:0")  # stands in for one: batches of another size
    close(score(pictures, prompts), before)


def test_grey_pictures_are_judged_as_the_same_ones_in_colour(tmp_path: Path) -> None:
    grey = tiny.pictures("wide")[:2, :, :, :1]
    for name in ("pick-score", "hpsv2"):
        score = SCORES[name].open(clip_folder(tmp_path / name))
        colour = score(np.repeat(grey, 3, axis=3), tiny.PROMPTS[:2])
        np.testing.assert_array_equal(score(grey, tiny.PROMPTS[:2]), colour)


def test_padding_keeps_the_whole_picture_and_is_black() -> None:
    white = torch.full((1, 50, 100, 3), 255, dtype=torch.uint8)
    seen = long_side_padded(white, 20)[0]
    black, full = (long_side_padded(torch.full_like(white, v), 20)[0, :, 10, 0] for v in (0, 255))
    assert seen.shape == (3, 20, 20)
    torch.testing.assert_close(seen[:, 5:15], full[:, None, None].expand(3, 10, 20))
    torch.testing.assert_close(seen[:, :5], black[:, None, None].expand(3, 5, 20))
    torch.testing.assert_close(seen[:, 15:], black[:, None, None].expand(3, 5, 20))
