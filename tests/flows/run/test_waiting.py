"""What stands before the work: quick refusals, a first line, and lines where nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from flows.run import waiting
from tasks.storage import stages

pytestmark = pytest.mark.timeout(120)
HEAVY = ("torch", "prefect", "diffusers", "transformers", "mlflow", "sklearn", "matplotlib")


REFUSALS = {
    "grid --spacing unifrom": "did you mean uniform?",
    "grid --features inceptoin-v3": "did you mean inception-v3?",
    "grid --runner dsk": "did you mean dask?",
    "grid --device cdua": "did you mean cuda?",
    "grid --dataset digit": "did you mean digits?",
    "grid --stps 10": "Did you mean --steps?",
    "grid --checkpoint {empty}": "holds no checkpoint",
    "grid --until-decided --goal fron": "did you mean front?",
    "gird": "Did you mean 'grid'",
    "swiss-roll --dataset swisroll": "did you mean swiss-roll?",
    "paper --spacing quid": "did you mean quad?",
    "lora style --schedule cosin": "did you mean cosine?",
    "lora style --data {empty}": "empty holds no image file",
    "lora subject --data /no/such": "there is no data",
    "lora subject --precision bf61": "did you mean bf16?",
    "score a b --features clip": "did you mean clip-vit-b-32?",
    "train --background blu": "did you mean blue?",
    "train-base --judge-steps 0": "judge_steps is 0",
    "train-base --start {empty}": "it must be a folder that train-base wrote",
    "score digits /no/such": "there is no data set '/no/such'",
    "score nothere.npz digits": "there is no file 'nothere.npz'",
    "score digits 3fa94c0d1b": "'3fa94c0d1b' is no cell",
}
# One process for all: whatever one command imports stays, so the first that is heavy is named.
REFUSE = f"""
import json, sys
from typer.testing import CliRunner
from flows.cli.app import app
for words in sys.argv[1:]:
    refused = CliRunner().invoke(app, words.split())
    heavy = sorted(set(sys.modules) & set({HEAVY}))
    print(json.dumps([refused.exit_code, refused.stderr, heavy]))
"""


@pytest.fixture(scope="module")
def refusals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """By the words of each wrong command: its exit code, what it said, and what is imported."""
    folder = tmp_path_factory.mktemp("refusals")
    (folder / "empty").mkdir()
    asked = [words.format(empty=folder / "empty") for words in REFUSALS]
    said = subprocess.run(
        [sys.executable, "-c", REFUSE, *asked], capture_output=True, text=True, check=True,
        env={**os.environ, "DDIM_DATA": str(folder), "COLUMNS": "200"},
    ).stdout  # fmt: skip
    return dict(zip(REFUSALS, map(json.loads, said.splitlines()), strict=True))


@pytest.mark.parametrize("words", REFUSALS)
def test_a_wrong_word_is_refused_without_heavy_imports(
    refusals: dict[str, tuple[int, str, list[str]]], words: str
) -> None:
    code, said, heavy = refusals[words]
    assert code == 2, said
    assert REFUSALS[words] in said
    assert heavy == []


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


def test_any_command_that_takes_long_to_import_says_its_name_first() -> None:
    """`curve`, `export` and `announce` said nothing for 5 to 7 s."""
    slow = (
        "import sys, time, types; sys.argv = ['ddim', 'curve']\n"
        "app = sys.modules['flows.cli.app'] = types.ModuleType('app')\n"
        "app.app = lambda: time.sleep(1.5)\n"
        "from flows.cli import entry; entry.main()"
    )
    done = subprocess.run([sys.executable, "-c", slow], capture_output=True, text=True, check=True)
    assert done.stderr == "ddim curve: reading what is asked for\n"
