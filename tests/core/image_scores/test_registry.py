"""What a user asks for: names, places, and networks that are something else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ddim_core.image_scores.registry import (
    SCORES,
    ImageScoreChoice,
    choices_of,
    require_no_prompts_needed,
)
from tests.core.image_scores import tiny
from tests.core.image_scores.folders import aesthetic_folder, clip_folder, reward_folder


def test_wrong_names_and_places_are_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'clipscore' \(did you mean clip-score\?\); it must be"):
        choices_of(["clipscore"])
    with pytest.raises(ValueError, match="has 'hpsv2' twice"):
        choices_of(["hpsv2=v2.0", "hpsv2"])
    with pytest.raises(ValueError, match=r"no folder 'v3'; hpsv2 takes .* v2.1 or v2.0"):
        choices_of(["hpsv2=v3"])
    with pytest.raises(ValueError, match="no folder '/nonexistent'"):
        choices_of(["aesthetic=/nonexistent"])
    with pytest.raises(ValueError, match=r"no weights of pick-score; it must hold config.json"):
        choices_of([f"pick-score={tmp_path}"])
    (tmp_path / "a.pth").touch()
    with pytest.raises(ValueError, match="is a file; aesthetic takes the folder it lies in"):
        choices_of([f"aesthetic={tmp_path / 'a.pth'}"])


def test_scores_that_need_prompts_are_refused_without(tmp_path: Path) -> None:
    alone = choices_of(["aesthetic"])
    require_no_prompts_needed(alone, "the toy model")
    for name, kind in SCORES.items():
        if kind.needs_prompts:
            with pytest.raises(ValueError, match=f"'{name}', .* the toy model has no prompts"):
                require_no_prompts_needed([*alone, *choices_of([name])], "the toy model")


def test_a_folder_gives_what_its_score_is_made_of_and_nothing_else(tmp_path: Path) -> None:
    folder = aesthetic_folder(tmp_path / "made")
    (folder / "code.py").write_text("raise SystemExit")
    found = ImageScoreChoice("aesthetic", str(folder)).files()
    assert sorted(found) == ["linear.pth", "open_clip_config.json", "open_clip_model.safetensors"]
    shutil.copy(folder / "linear.pth", folder / "other.pth")
    with pytest.raises(ValueError, match=r"holds linear.pth, other.pth, and aesthetic is made of"):
        ImageScoreChoice("aesthetic", str(folder))


def test_networks_of_something_else_are_refused(tmp_path: Path) -> None:
    folder = clip_folder(tmp_path / "clip")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.5, 0.5, 0.5]}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"clip-score wants pictures of mean \[0.5, 0.5, 0.5\]"):
        SCORES["clip-score"].open(folder)
    (folder / "open_clip_config.json").unlink()
    state = tiny.open_clip_state()
    save_file(state | {"visual.extra": torch.zeros(1)}, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"no CLIP in open_clip's layout: it has 'visual.extra'"):
        SCORES["clip-score"].open(folder)
    save_file({"a": torch.zeros(1)}, folder / "open_clip_model.safetensors")
    with pytest.raises(ValueError, match=r"it lacks 'visual.conv1.weight'"):
        SCORES["clip-score"].open(folder)

    layers = aesthetic_folder(tmp_path / "aesthetic")
    relu = {f"layers.{i}.weight": torch.zeros(1, 1) for i in (0, 3, 6, 9, 11)}
    torch.save(relu, layers / "linear.pth")
    with pytest.raises(ValueError, match=r"stand at \[0, 3, 6, 9, 11\]; linear ones without ReLU"):
        SCORES["aesthetic"].open(layers)

    reward = reward_folder(tmp_path / "reward")
    (reward / "vocab.txt").write_text("\n".join(map(str, range(200))) + "\n")
    with pytest.raises(ValueError, match=r"has 2\d\d tokens, and its network knows 143"):
        SCORES["image-reward"].open(reward)
    torch.save(tiny.head_state(), reward / "ImageReward.pt")
    with pytest.raises(ValueError, match=r"lack 'embeddings.patch_embedding.weight' of its BLIP"):
        SCORES["image-reward"].open(reward)


def test_prompts_have_to_be_one_an_image(tmp_path: Path) -> None:
    score = SCORES["clip-score"].open(clip_folder(tmp_path / "clip"))
    with pytest.raises(ValueError, match="there are no prompts for 6 images"):
        score(tiny.pictures("small"))
    with pytest.raises(ValueError, match="there are 1 prompts for 6 images"):
        score(tiny.pictures("small"), ["a"])
    with pytest.raises(ValueError, match="images are float64"):
        score(tiny.pictures("small") / 255.0, tiny.PROMPTS)
