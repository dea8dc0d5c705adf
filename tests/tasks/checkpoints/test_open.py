"""Checkpoints from elsewhere: converted once, fetched from MLflow and the hub, secrets kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ddim_core.checkpoints.checkpoint import load_checkpoint
from ddim_core.checkpoints.convert import source_digest, source_files
from ddim_core.common.redaction import has_password, redacted
from tasks.checkpoints.addresses import name_of, require_location
from tasks.checkpoints.convert import convert_checkpoint
from tasks.checkpoints.fetch import fetch_checkpoint
from tasks.machine.secrets import OutsideError, without_secrets
from tasks.storage import store
from tests.core.foreign_files import (
    answer,
    course_file,
    official_like,
    official_names,
    pixel_pipeline,
    small_unet,
)

FLOAT32 = 2e-6  # as in tests/core/checkpoints/test_convert.py


def converted(place: Path) -> Path:
    source = source_digest(source_files(place))
    return store.get_folder(convert_checkpoint.fn(source, "ema", str(place)))


def test_a_conversion_ends_in_the_store_and_opens(tmp_path: Path) -> None:
    unet = official_like()
    torch.save(official_names(unet), tmp_path / "model-5.ckpt")
    folder = converted(tmp_path / "model-5.ckpt")
    got = load_checkpoint(folder)
    assert (answer(got.model) - answer(unet)).abs().max() < FLOAT32
    assert got.training_step == 5
    assert converted(tmp_path / "model-5.ckpt") == folder


def test_a_pipeline_keeps_the_digest_of_its_own_files(tmp_path: Path) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    source = source_digest(source_files(folder))
    ref = convert_checkpoint.fn(source, "ema", str(folder))
    assert ref.artifact == store.put_folder(folder).artifact


def test_files_that_change_while_they_are_read_are_not_stored(tmp_path: Path) -> None:
    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    with pytest.raises(ValueError, match="changed while they were read"):
        convert_checkpoint.fn("another digest", "ema", str(folder))


@pytest.fixture
def model_in_mlflow(tmp_path: Path) -> tuple[str, Path]:
    """A pipeline as a run's artefact and as a registered model, in a tracking store of its own."""
    from mlflow import MlflowClient

    folder = pixel_pipeline(tmp_path / "pipeline", small_unet())
    client = MlflowClient()
    experiment = client.create_experiment(
        f"adopt-{tmp_path.name}", artifact_location=(tmp_path / "artifacts").as_uri()
    )
    run = client.create_run(experiment).info.run_id
    client.log_artifacts(run, str(folder), "model")
    name = f"digits-{tmp_path.name}"
    client.create_registered_model(name)
    source = (tmp_path / "artifacts" / run / "artifacts" / "model").as_uri()
    version = client.create_model_version(name, source, run_id=run).version
    client.set_registered_model_alias(name, "champion", version)
    return name, folder


def test_mlflow_gives_runs_versions_and_aliases(
    model_in_mlflow: tuple[str, Path], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    name, folder = model_in_mlflow
    run = MlflowClient().get_model_version(name, "1").run_id
    for i, address in enumerate(
        [f"models:/{name}@champion", f"models:/{name}/1", f"runs:/{run}/model"]
    ):
        require_location(address)
        place = Path(fetch_checkpoint.fn(address, str(tmp_path / f"fetched-{i}")))
        assert source_digest(source_files(place)) == source_digest(source_files(folder))
    assert name_of(f"models:/{name}@champion") == f"{name}@champion"


def test_what_mlflow_does_not_have_is_said(tmp_path: Path) -> None:
    for address in ("models:/nothing@champion", "runs:/0123456789abcdef0123456789abcdef/model"):
        with pytest.raises(ValueError, match="cannot be fetched from MLflow"):
            fetch_checkpoint.fn(address, str(tmp_path / "fetched"))


def test_a_hub_that_does_not_answer_is_said(tmp_path: Path) -> None:
    require_location("google/ddpm-cifar10-32")
    with pytest.raises(ConnectionError, match=r"as a hub id it cannot be fetched.*HF_HUB_OFFLINE"):
        fetch_checkpoint.fn("google/ddpm-cifar10-32", str(tmp_path / "fetched"))


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("no/such/folder", "there is no checkpoint folder"),
        ("https://example.org/model.ckpt", "there is no checkpoint folder"),
        ("nowhere", "there is no checkpoint folder"),
        ("x" * 5000, "there is no checkpoint folder"),
        ("posthoc:nowhere?std=0.08", "there is no folder 'nowhere' of snapshots"),
        (f"posthoc:{'x' * 5000}?std=0.08", "there is no folder 'x"),
        ("posthoc:.?std=0.08", "of 0 widths"),
        ("posthoc:.?std=0.05,0.1", "names 2 averages; give one std here"),
        ("posthoc:.?std=0.3", r"std is '0.3' in .* below 0\.2887"),
        ("posthoc:.?std=nan", "std is 'nan'"),
        ("posthoc:.", r"is no average; write posthoc:FOLDER\?std=0.08"),
        ("posthoc:.?std=0.1&kimg=-1", "is no average"),
        ("mlflow-artifacts://ann:hunter22@host/1/model", r"//\*\*\*@host.*carries credentials"),
    ],
)
def test_a_location_of_no_known_kind_is_refused(location: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        require_location(location)
    assert "hunter22" not in str(caught.value)


def test_secrets_are_hidden_wherever_they_stand() -> None:
    environment = {"MLFLOW_TRACKING_PASSWORD": "hunter22", "HF_TOKEN": "hf_abc", "HOME": "/root"}
    text = "GET http://ann:pw@host/api?token=t1&n=2#auth=t2;pwd=t3 for ann, hunter22, hf_abc in /r"
    hidden = "GET http://***@host/api?token=***&n=2#auth=***;pwd=*** for ann, ***, *** in /r"
    assert redacted(text, environment) == hidden


def test_a_password_with_signs_in_it_is_hidden_whole() -> None:
    for word in ("p@ss", "p'ss", 'p"ss', "'p\"", "p',ss"):
        told = f"to postgresql://ann:{word}@host/db"
        assert redacted(told, {}) == "to postgresql://***@host/db"
        assert has_password(told)
    for told in ("at 'http://h?token={}'", '{{"at":"http://h?key={}","n":"b"}}', "?pwd={}&n=2"):
        for word in ("abc", "a'b", 'a"b', "'\"b"):
            assert redacted(told.format(word), {}) == told.format("***")
    environment = {"MLFLOW_TRACKING_PASSWORD": "p@ss word"}
    assert redacted("p@ss word or p%40ss%20word", environment) == "*** or ***"


def test_an_error_of_a_server_loses_its_password_and_its_cause() -> None:
    @without_secrets
    def fails() -> None:
        raise OSError("no route to http://ann:hunter22@host/api")

    with pytest.raises(
        OutsideError, match=r"OSError: no route to http://\*\*\*@host/api"
    ) as caught:
        fails()
    assert caught.value.__suppress_context__


def test_the_address_of_mlflow_is_shown_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tasks.tracking.address import how_to_open

    monkeypatch.setitem(os.environ, "MLFLOW_TRACKING_URI", "http://ann:hunter22@host:5000")
    assert how_to_open() == "http://***@host:5000"


def test_an_unreachable_mlflow_does_not_tell_its_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:hunter22@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises((ConnectionError, ValueError), match="cannot be fetched") as caught:
        fetch_checkpoint.fn("models:/digits@champion", str(tmp_path))
    assert "hunter22" not in str(caught.value)


def test_the_course_and_its_hparams_go_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="of no known network"):
        converted(course_file(tmp_path / "last.ckpt", {"x": torch.ones(1)}, {}))
