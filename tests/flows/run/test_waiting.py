"""What stands before the work: quick refusals, a first line, and lines where nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.run import waiting
from tasks.storage import stages

pytestmark = pytest.mark.timeout(120)
HEAVY = ("torch", "prefect", "diffusers", "transformers", "mlflow", "sklearn", "matplotlib")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("grid --spacing unifrom", "did you mean uniform?"),
        ("grid --features inceptoin-v3", "did you mean inception-v3?"),
        ("grid --runner dsk", "did you mean dask?"),
        ("grid --device cdua", "did you mean cuda?"),
        ("grid --dataset digit", "did you mean digits?"),
        ("grid --stps 10", "Did you mean --steps?"),
        ("grid --checkpoint {empty}", "holds no checkpoint"),
        ("grid --until-decided --goal fron", "did you mean front?"),
        ("gird", "Did you mean 'grid'"),
        ("swiss-roll --dataset swisroll", "did you mean swiss-roll?"),
        ("paper --spacing quid", "did you mean quad?"),
        ("lora style --schedule cosin", "did you mean cosine?"),
        ("lora style --data {empty}", "empty holds no image file"),
        ("lora subject --data /no/such", "there is no data"),
        ("lora subject --precision bf61", "did you mean bf16?"),
        ("score a b --features clip", "did you mean clip-vit-b-32?"),
        ("train --background blu", "did you mean blue?"),
        ("train-base --judge-steps 0", "judge_steps is 0"),
        ("score digits /no/such", "there is no data set '/no/such'"),
        ("score nothere.npz digits", "there is no file 'nothere.npz'"),
        ("score digits 3fa94c0d1b", "'3fa94c0d1b' is no cell"),
    ],
)
def test_a_wrong_word_is_refused_without_heavy_imports(
    tmp_path: Path, words: str, wanted: str
) -> None:
    (tmp_path / "empty").mkdir()
    words = words.format(empty=tmp_path / "empty")
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli.entry", *words.split()]
    environment = {**os.environ, "DDIM_DATA": str(tmp_path), "COLUMNS": "200"}
    refused = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert refused.returncode == 2, refused.stderr
    lines = refused.stderr.splitlines()
    imported = {line.rsplit("|", 1)[1].strip() for line in lines if line.startswith("import time")}
    assert imported & set(HEAVY) == set()
    assert wanted in "\n".join(line for line in lines if not line.startswith("import time"))


def test_a_silent_stage_gets_lines_that_name_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(waiting, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(waiting, "TICK_SECONDS", 0.05)
    with waiting.shown("about to do it"):
        stages.begin("reading")
        time.sleep(0.5)
        with stages.running("sample shard"), stages.running("sample shard"):
            time.sleep(0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "about to do it"
    assert any(line.startswith("still reading: ") for line in lines)
    assert any(line.startswith("still sample shard (x2): ") for line in lines)
