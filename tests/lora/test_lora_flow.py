"""The flow of a subject from photos to files, and what is not done a second time."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from ddim_core.lora.data import write_captioned
from ddim_core.lora.scoring.row import LoraRow
from tasks.lora.scoring.table import read_lora_table
from tasks.storage import store
from tasks.storage.artifact import Report
from tests.core.image_scores.folders import clip_folder
from tests.lora.material import noise_pictures

# What each cached task calls to do its work, where that task looks it up.
WORK = {
    "latents": "tasks.lora.inputs.latents_of",
    "embeddings": "tasks.lora.inputs.embeddings_of",
    "class images": "tasks.lora.class_images.draw",
    "training": "tasks.lora.train.run",
    "export": "tasks.lora.export.save_kohya",
    "round trip": "tasks.lora.export.reload_apart",
    "scored pictures": "tasks.lora.scoring.pictures.pictures",
    "scores": "tasks.lora.scoring.measure.take_measures",
    "scores of images": "tasks.image_scores.judge.scorer_in_memory",
    "validation loss": "tasks.lora.validation.validation_loss",
    "report": "tasks.reports.lora.measure_curves",
}


def forbid(monkeypatch: pytest.MonkeyPatch, **works: str) -> None:
    for what, place in works.items():

        def refused(*_: Any, what: str = what, **__: Any) -> None:
            raise AssertionError(f"{what} was done again")

        monkeypatch.setattr(place, refused)


def test_a_subjects_lora_is_made_once_and_new_validation_prompts_train_nothing(
    server: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from flows.cli.commands.lora import HowToShow, _show
    from flows.lora_subject import lora_subject

    photos, unseen = tmp_path / "photos", tmp_path / "unseen"
    write_captioned(noise_pictures(3), photos)
    (photos / "metadata.jsonl").unlink()
    write_captioned(noise_pictures(3, "a photo of sks cat", seed=1), unseen)
    asked: dict[str, Any] = {
        "base": str(base), "data": str(photos), "instance_prompt": "a photo of sks cat",
        "class_images": 4, "resolution": 16, "steps": 4, "batch_size": 2, "text_encoder": True,
        "learning_rate": 1e-2, "checkpoint_every": 2, "validation_prompts": ["a photo of sks cat"],
        "picture_steps": 2, "scales": [0.0, 1.0], "validation_data": str(unseen),
        "score_prompts": ["a red dog"], "threads": 1, "title": "cat",
        "image_scores": [f"clip-score={clip_folder(tmp_path / 'clip')}"],
    }  # fmt: skip
    first = lora_subject(**asked)
    assert first.lora.gate["diffusers"].largest_weight_difference == 0.0
    assert first.lora.gate["kohya"].largest_weight_difference == 0.0
    assert [stage.step for stage in first.lora.validation] == [0, 2, 4]
    names = {path.name for path in Path(first.lora.folder).iterdir()}
    assert names == {
        "README.md", "pytorch_lora_weights.safetensors", "cat_kohya.safetensors", "settings.json",
        "training.png", "validation.png",
    }  # fmt: skip
    card = (Path(first.lora.folder) / "README.md").read_text()
    assert "4 images of the class" in card
    assert "not stated; ask whoever holds the rights" in card

    forbid(monkeypatch, **WORK, pictures="tasks.lora.pictures.draw")
    assert lora_subject(**asked) == first
    monkeypatch.undo()
    forbid(monkeypatch, **WORK)
    other = lora_subject(**asked | {"validation_prompts": ["a red dog", "a blue cat"]})
    assert other.lora.training == first.lora.training
    assert other.lora.validation != first.lora.validation
    assert other.scorecard.rows == first.scorecard.rows

    client = MlflowClient()
    (version,) = client.search_model_versions("name = 'lora-cat'")
    assert version.run_id == first.lora.mlflow_run == other.lora.mlflow_run
    history = client.get_metric_history(first.lora.mlflow_run, "loss")
    assert sorted(point.step for point in history) == [1, 2, 3, 4]
    rows = read_lora_table().set_index("row_digest").loc[list(first.scorecard.rows)]
    assert list(rows["prompts"].unique()) == ["instance", "class", "other"]
    assert (rows.groupby("prompts")["scale"].max() == 1.0).all()
    assert rows["copy_risk_pixels"].notna().sum() == 2  # of the instance prompts alone
    assert rows["clip_score"].notna().all()
    assert rows["pick_score"].isna().all()
    capsys.readouterr()
    _show(first, HowToShow(as_json=True))
    told = json.loads(capsys.readouterr().out)
    assert told["lora"]["folder"] == first.lora.folder
    assert told["reading"] == list(first.scorecard.reading)
    assert [row["row_digest"] for row in told["rows"]] == list(first.scorecard.rows)


def test_other_scales_are_another_run_of_mlflow_and_a_report_is_named_by_its_whole_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tasks.reports import lora as lora_report
    from tasks.tracking import scorecard

    names = (field.name for field in fields(LoraRow))
    known: dict[str, Any] = dict.fromkeys(names) | {"kind": "style", "row_digest": "a",
           "code_digest": "c", "lora_digest": "l", "base_digest": "b", "scale": 1.0,
           "prompts": "trained", "measures": {}}  # fmt: skip
    row = LoraRow(**known)
    report = Report(store.put(b"page", "report"), {}, ["as read"])
    one, again, two = (
        scorecard.track_scorecard.fn("a-long-title-0123", rows, report)
        for rows in ([row], [row], [row, replace(row, row_digest="d")])
    )
    assert one == again != two
    monkeypatch.setattr("tasks.reports.page.show", lambda *_: None)
    places = [
        lora_report.publish_lora_report.fn(f"a-long-title-{digest}", report, [row])
        for digest in ("0123", "4567")
    ]
    assert places[0] != places[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["style", "--rank", "0"], "rank is 0; it must be at least 1"),
        (["style", "--data", "/no/such"], "there is no data '/no/such'"),
        (["style", "--resolution", "18"], "resolution is 18; this base needs a multiple of 4"),
        (["subject", "--class-images", "0"], "class_images is 0"),
        (["subject", "--title", "a b"], "title is 'a b'"),
        (["style", "--data", "{empty}"], "empty holds no image file"),
        (["subject", "--data", "{photos}"], "instance_prompt is empty, and the images have no"),
        (["style", "--targets", "to_qq"], "there is no target module 'to_qq'"),
    ],
)
def test_bad_input_ends_in_one_sentence_and_exit_code_2(
    base: Path, words: list[str], said: str, tmp_path: Path
) -> None:
    from flows.cli.commands.lora import lora

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
