"""The flow of a subject from photos to files, and what is not done a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from material import noise_pictures
from mlflow import MlflowClient
from typer.testing import CliRunner

from ddim_core.lora_data import write_captioned

# What each cached task calls to do its work, where that task looks it up.
WORK = {
    "latents": "tasks.lora_inputs.latents_of",
    "embeddings": "tasks.lora_inputs.embeddings_of",
    "class images": "tasks.lora_class_images.draw",
    "training": "tasks.lora.run",
    "export": "tasks.lora_export.save_kohya",
    "round trip": "tasks.lora_export.reload_apart",
}


def forbid(monkeypatch: pytest.MonkeyPatch, **works: str) -> None:
    for what, place in works.items():

        def refused(*_: Any, what: str = what, **__: Any) -> None:
            raise AssertionError(f"{what} was done again")

        monkeypatch.setattr(place, refused)


def test_a_subjects_lora_is_made_once_and_new_validation_prompts_train_nothing(
    server: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.lora_subject import lora_subject

    photos = tmp_path / "photos"
    write_captioned(noise_pictures(3), photos)
    (photos / "metadata.jsonl").unlink()
    asked: dict[str, Any] = {
        "base": str(base), "data": str(photos), "instance_prompt": "a photo of sks cat",
        "class_images": 4, "resolution": 16, "steps": 4, "batch_size": 2, "text_encoder": True,
        "learning_rate": 1e-2, "checkpoint_every": 2, "validation_prompts": ["a photo of sks cat"],
        "picture_steps": 2, "scales": [0.0], "threads": 1, "title": "cat",
    }  # fmt: skip
    first = lora_subject(**asked)
    assert first["gate"]["diffusers"]["largest_weight_difference"] == 0.0
    assert first["gate"]["kohya"]["largest_weight_difference"] == 0.0
    assert [stage["step"] for stage in first["validation"]] == [0, 2, 4]
    names = {path.name for path in Path(first["folder"]).iterdir()}
    assert names == {
        "README.md", "pytorch_lora_weights.safetensors", "cat_kohya.safetensors", "settings.json",
        "training.png", "validation.png",
    }  # fmt: skip
    card = (Path(first["folder"]) / "README.md").read_text()
    assert "4 images of the class" in card
    assert "not stated; ask whoever holds the rights" in card

    forbid(monkeypatch, **WORK, pictures="tasks.lora_pictures.draw")
    assert lora_subject(**asked)["training"] == first["training"]
    monkeypatch.undo()
    forbid(monkeypatch, **WORK)
    other = lora_subject(**asked | {"validation_prompts": ["a red dog", "a blue cat"]})
    assert other["training"] == first["training"]
    assert other["validation"] != first["validation"]

    client = MlflowClient()
    (version,) = client.search_model_versions("name = 'lora-cat'")
    assert version.run_id == first["mlflow_run"] == other["mlflow_run"]
    history = client.get_metric_history(first["mlflow_run"], "loss")
    assert sorted(point.step for point in history) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["style", "--rank", "0"], "rank is 0; it must be at least 1"),
        (["style", "--data", "/no/such"], "there is no data '/no/such'"),
        (["style", "--resolution", "18"], "resolution is 18; this base needs a multiple of 4"),
        (["subject", "--class-images", "0"], "class_images is 0"),
        (["subject", "--title", "a b"], "title is 'a b'"),
        (["style", "--data", "{empty}"], "holds no image; there must be at least one"),
        (["subject", "--data", "{photos}"], "instance_prompt is empty, and the images have no"),
        (["style", "--targets", "to_qq"], "there is no target module 'to_qq'"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_exit_code_2(
    base: Path, words: list[str], said: str, tmp_path: Path
) -> None:
    from flows.cli_lora import lora

    photos, empty = tmp_path / "photos", tmp_path / "empty"
    write_captioned(noise_pictures(1), photos)
    (photos / "metadata.jsonl").unlink()
    empty.mkdir()
    words = [word.format(photos=photos, empty=empty) for word in words]
    given = [
        *words,
        "--base",
        str(base),
        *(
            []
            if "--data" in words
            else ["--data", str(photos), "--instance-prompt", "x"][
                : 2 if words[0] == "style" else 4
            ]
        ),
    ]
    answer = CliRunner().invoke(lora, given)
    assert answer.exit_code == 2, answer.output
    assert said in " ".join(answer.output.split())
