"""ddim.toml: written by `ddim init`, found upwards, taken where no option gives a value."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.commands import watch
from flows.cli.commands.command import deciding
from flows.cli.commands.options import as_given
from flows.requests.flat import build, parameters, values
from flows.requests.grid import GridRequest
from flows.requests.lora import StyleRequest
from flows.requests.race import RaceRequest
from flows.requests.tuning import TuneRequest
from flows.requests.watch import Watch
from flows.servers.deploy import OURS, deployments
from flows.team.defaults import nearest_file, taken
from flows.team.writing import defaults_text, deployments_text


def test_a_verdicts_command_has_what_was_given_and_what_the_file_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "sesame'4711")
    of = get_command(app)
    door = of.commands["verdict"]  # type: ignore[attr-defined]
    words = ["it's new", "--at", "20,0.5", "--gate", "--against", "x sesame'4711"]
    context = door.make_context("verdict", words, parent=of.context_class(of, info_name="ddim"))
    said = shlex.split(as_given(context, {"margin": 0.2}))
    assert said[:3] == ["ddim", "verdict", "it's new"]
    assert {" ".join(pair) for pair in pairwise(said)} >= {
        "--at 20,0.5", "--margin 0.2", "--against x ***",
    }  # fmt: skip
    assert ("--gate" in said, "--twins" in said) == (True, False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one, without DDIM_CONFIG."""
    monkeypatch.delenv("DDIM_CONFIG")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def says(folder: Path, text: str) -> None:
    (folder / "ddim.toml").write_text(text)


def test_a_value_counts_where_its_parameter_means_the_same_and_no_option_gives_it(
    folder: Path,
) -> None:
    says(folder, 'n_images = 500\nsteps = [20]\nmargin = 0.2\nfeatures = "pixels"\n')
    of_grid = taken(GridRequest, {"steps": [5]})
    assert of_grid is not None
    assert of_grid.values == {"n_images": 500, "margin": 0.2, "features": "pixels"}
    told = "n_images = 500, margin = 0.2, features = pixels"
    assert of_grid.line == f"{folder / 'ddim.toml'}: {told}"
    of_race = taken(RaceRequest, {})
    assert of_race is not None
    assert "margin" not in of_race.values  # a race has none
    assert of_race.values["steps"] == [20]
    # Of a LoRA `steps` are of its training: another meaning.
    assert taken(StyleRequest, {}) is None or "steps" not in taken(StyleRequest, {}).values  # type: ignore[union-attr]


def test_a_table_counts_in_its_flow_alone_and_beats_the_top(folder: Path) -> None:
    says(folder, 'features = "pixels"\n[tune]\ncalls = [4]\nfeatures = "inception-v3"\n')
    tune, grid = taken(TuneRequest, {}), taken(GridRequest, {})
    assert tune is not None
    assert grid is not None
    assert tune.values == {"features": "inception-v3", "calls": [4]}
    assert grid.values == {"features": "pixels"}


def test_the_nearest_file_upwards_counts_but_for_the_one_that_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = folder / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert nearest_file() is None or folder not in nearest_file().parents  # type: ignore[union-attr]
    says(folder, "")
    assert nearest_file() == folder / "ddim.toml"
    says(below, "")
    assert nearest_file() == below / "ddim.toml"
    monkeypatch.setenv("DDIM_CONFIG", str(folder / "ddim.toml"))
    assert nearest_file() == folder / "ddim.toml"
    monkeypatch.setenv("DDIM_CONFIG", str(folder / "none.toml"))
    with pytest.raises(ValueError, match=r"DDIM_CONFIG is .*none\.toml.*no such file"):
        nearest_file()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('featres = "pixels"', r"no parameter featres \(did you mean features\?\)"),
        ("[tunes]\ncalls = [4]", r"no flow tunes \(did you mean tune\?\)"),
        ("[snapshots]\ncheckpoints = ['a']", r"no parameter of snapshots checkpoints"),
        ("[tune]\ncals = [4]", r"no parameter of tune cals \(did you mean calls\?\)"),
        ("steps = [", r"ddim\.toml is no TOML"),
        ("a = " + "[" * 100_000, r"ddim\.toml is no TOML"),
        ("[tune]\ncalls" + ".a" * 100_000 + " = 1", r"ddim\.toml is no TOML.*32 parts"),
        ("[tune]\ncalls = " + "[" * 300 + "]" * 300, r"ddim\.toml .*nested"),
        ("[tune" + ' . "a"' * 40_000 + "]", r"ddim\.toml is no TOML.*32 parts"),
        ("k" * 200_000 + " = 1", r"no parameter k{100};"),
        ('"\\u001b[2J" = 1', r"no parameter \\x1b\[2J;"),
        ('against = "https://me:secret@host/x"', r"against = .*carries credentials"),
    ],
)
def test_a_file_that_cannot_be_is_refused_in_words(folder: Path, text: str, said: str) -> None:
    says(folder, text)
    with pytest.raises(ValueError, match=said) as refused:
        taken(GridRequest, {})
    assert "secret" not in str(refused.value)


def test_a_file_of_another_user_counts_only_if_it_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(folder, "")
    place = folder / "ddim.toml"
    if os.getuid() == 0:  # whose own files are everyone's, as in /etc
        os.chown(place, 12345, -1)
    else:
        monkeypatch.setattr("os.getuid", lambda: place.stat().st_uid + 1)
    with pytest.raises(ValueError, match="belongs to another user"):
        nearest_file()
    monkeypatch.setenv("DDIM_CONFIG", str(place))
    assert nearest_file() == place


def test_a_command_says_what_it_takes_and_its_check_is_that_of_an_option(folder: Path) -> None:
    says(folder, "n_images = 1\n")
    refused = CliRunner().invoke(app, ["grid", "--features", "pixels"])
    assert refused.exit_code == 2
    took, why = refused.stderr.splitlines()
    assert took == f"{folder / 'ddim.toml'}: n_images = 1"
    assert why.startswith("ddim: n_images is 1")


def test_a_verdict_and_a_comparison_have_the_teams_margin_and_score(folder: Path) -> None:
    assert (deciding(None, None).margin, deciding(None, None).decide_by) == (0.0, "fid")
    says(folder, 'margin = 0.2\ndecide_by = "fid_inf"\nagainst = "none"\n')
    by = deciding(None, "fid")
    assert (by.margin, by.decide_by) == (0.2, "fid")
    with pytest.raises(ValueError, match=r"margin is -1.*at least 0"):
        deciding(-1.0, None)


def test_what_init_writes_is_what_was_settled_and_every_default(folder: Path) -> None:
    words = "init --features pixels --margin 0.2 --samplers own,ddim --n-images 50 --folder new"
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 0, done.output
    settled = {"features": "pixels", "margin": 0.2, "samplers": ["own", "ddim"], "n_images": 50}
    text = Path("new", "ddim.toml").read_text()
    assert tomllib.loads(text) == settled
    grids = [d for d in yaml.safe_load(Path("new", "prefect.yaml").read_text())["deployments"]
             if d["name"] in ("fid-grid", "checkpoint-watch", "announced")]  # fmt: skip
    assert [d["parameters"].get("grid", d["parameters"]) for d in grids] == [settled] * 3
    refused = CliRunner().invoke(app, ["init", "--folder", "new"])
    assert refused.exit_code == 2
    assert "are there already; edit them" in refused.stderr

    # Every line of a default is right when its # is taken away.
    names = "|".join(parameter.name for parameter in parameters(GridRequest))
    uncommented = re.sub(rf"(?m)^# (?=(?:{names}) = \S)", "", defaults_text({}))
    assert uncommented.count("\n#") < defaults_text({}).count("\n#") - 30
    assert values(build(GridRequest, tomllib.loads(uncommented))) == values(build(GridRequest, {}))


def test_the_deployments_of_a_folder_beat_those_that_come_with_the_project(folder: Path) -> None:
    assert deployments() == OURS
    assert deployments_text({}) == OURS.read_text()
    Path("prefect.yaml").write_text(deployments_text({"margin": 0.5}))
    assert deployments() == Path("prefect.yaml")


def test_an_empty_variable_is_no_file_and_a_strangers_link_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(folder, "n_images = 31\n")
    monkeypatch.setenv("DDIM_CONFIG", "")
    assert nearest_file() is None
    monkeypatch.delenv("DDIM_CONFIG")
    (folder / "ddim.toml").rename(folder / "mine.toml")
    (folder / "ddim.toml").symlink_to("mine.toml")
    assert nearest_file() is not None
    if os.getuid() == 0:
        os.chown(folder / "ddim.toml", 65534, 65534, follow_symlinks=False)
        with pytest.raises(ValueError, match="belongs to another user"):
            nearest_file()


def test_a_named_checkpoint_beats_the_files_and_the_toy_can_be_asked_for(folder: Path) -> None:
    says(folder, 'checkpoint = "/data/x"\n')
    for named, opened in (("/nonexist/B", "/nonexist/B"), ("", None)):
        said = CliRunner().invoke(app, ["grid", "--checkpoint", named, "--steps", "0"])
        assert said.exit_code == 2
        assert "/data/x" not in said.stderr
        assert (opened is None) or opened in said.stderr or "steps is 0" in said.stderr


def test_a_folder_of_snapshots_in_the_file_is_the_one_checkpoint_that_it_says(
    folder: Path,
) -> None:
    """Only --checkpoint asks for a ranking, whose parameters are others: it has no margin."""
    for name in ("step-1", "step-2"):
        (folder / "runs" / name).mkdir(parents=True)
        (folder / "runs" / name / "model_index.json").write_text("{}")
    says(folder, 'checkpoint = "runs"\nmargin = 0.2\nn_images = 3\n[snapshots]\nn_images = 2\n')
    for words, told in (
        ("--steps 0", "steps is 0"),
        ("--checkpoint runs --steps 5", "n_images is 2; it must be at least 4"),
    ):
        refused = CliRunner().invoke(app, ["grid", *words.split()])
        assert refused.exit_code == 2
        assert told in refused.stderr
        assert ("margin" in refused.stderr) == ("--checkpoint" not in words)
        assert "leave it out" not in refused.stderr


def test_a_watch_takes_of_the_file_what_is_not_said_and_no_more(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Watch] = []
    monkeypatch.setattr(watch, "_look", lambda given, _told: asked.append(given))
    says(folder, 'features = "inception-v3"\nn_images = 50\ncheckpoint = "x"\n[tune]\nseed = 3\n'
         '[lora-score]\nloras = ["a"]\nsteps = 9\n')  # fmt: skip
    words = ["watch", str(folder), "--once"]
    for more in (["-p", "features=pixels", "--tune", "calls=[4]"], ["--lora", "prompts=p.txt"]):
        done = CliRunner().invoke(app, [*words, *more])
        assert done.exit_code == 0, done.output
        asked[-1].check()
    grid, tune = (job.parameters for job in asked[0].jobs(folder / "step-1"))
    assert grid == {"features": "pixels", "n_images": 50, "checkpoint": str(folder / "step-1")}
    assert (tune["features"], tune["calls"], tune["seed"]) == ("pixels", [4], 3)
    assert (asked[1].grid, asked[1].lora) == ({}, {"prompts": "p.txt", "steps": 9})


def test_in_the_clone_its_own_deployments_stay(folder: Path) -> None:
    (folder / "prefect.yaml").symlink_to(OURS)
    done = CliRunner().invoke(app, ["init"])
    assert done.exit_code == 0, done.stderr
    assert (folder / "ddim.toml").exists()
    assert (folder / "prefect.yaml").is_symlink()
