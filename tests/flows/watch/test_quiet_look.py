"""Looks that find nothing new leave no run: what is new, and what has been told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

import flows.checkpoint_watch
from flows.cli.app import app
from flows.requests.watch import Watch
from flows.watch import quiet_look
from flows.watch.quiet_look import is_news
from tasks.checkpoints.arrivals import remember, stamp_of

ASKED = Watch(settle_seconds=0.0, attempts=2)


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / "config.json").write_text("{}")
    return tmp_path


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """States of the runs that a server has of a checkpoint's grid; none yet."""
    kinds: list[str] = []

    class Client:
        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None: ...

        def read_flow_runs(self, **_: object) -> list[Any]:
            return [SimpleNamespace(state=SimpleNamespace(type=SimpleNamespace(name=kind)))
                    for kind in kinds]  # fmt: skip

    monkeypatch.setattr(quiet_look, "get_client", lambda **_: Client())
    identity = SimpleNamespace(real=SimpleNamespace(dataset="digits"), identity=lambda _: "i" * 64)
    monkeypatch.setattr(Watch, "jobs", lambda *_: [SimpleNamespace(request=identity)])
    monkeypatch.setattr(quiet_look, "is_scored", lambda *_: "SCORED" in kinds)
    return kinds


def test_a_folder_is_news_once_and_again_when_it_changed(watched: Path) -> None:
    asked, told = replace(ASKED, sources=[str(watched)]), {}  # type: ignore[var-annotated]
    assert is_news(asked, told)
    assert not is_news(asked, told)
    (watched / "step-1" / "config.json").write_text("{ }")
    assert is_news(asked, told)
    assert not is_news(replace(ASKED, sources=[str(watched / "nothing-*")]), told)


def test_what_is_still_being_written_waits_for_the_next_look(
    watched: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told = replace(ASKED, sources=[str(watched)]), {}  # type: ignore[var-annotated]
    monkeypatch.setattr(quiet_look, "stamp_of", lambda _: "another")
    assert not is_news(asked, told)
    monkeypatch.undo()
    assert is_news(asked, told)


@pytest.mark.parametrize(
    ("kinds", "new"),
    [
        ([], True), (["FAILED"], True), (["RUNNING"], False), (["SCHEDULED"], False),
        (["FAILED", "CRASHED"], False), (["CANCELLED"], False), (["COMPLETED"], False),
        (["FAILED", "RUNNING"], False), (["SCORED"], False),
    ],
)  # fmt: skip
def test_a_checkpoint_that_was_read_is_news_while_a_grid_is_to_be_started(
    watched: Path, runs: list[str], kinds: list[str], new: bool
) -> None:
    path = watched / "step-1"
    remember(str(path), stamp_of(path), [str(path), "w" * 64])
    runs += kinds
    assert is_news(replace(ASKED, sources=[str(watched)]), {}) == new


def test_a_source_that_does_not_answer_is_told_once_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silence: tuple[list[Any], list[str]] = ([], ["no answer"])
    answers = [silence, silence, ([], []), silence]
    monkeypatch.setattr(quiet_look, "look_at", lambda _: answers.pop(0))
    told: dict[str, str] = {}
    found = [is_news(replace(ASKED, sources=["hub:a/b"]), told) for _ in range(4)]
    assert found == [True, False, False, True]


def test_the_command_runs_no_flow_where_nothing_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.checkpoint_watch, "checkpoint_watch", lambda **_: pytest.fail("ran"))
    done = CliRunner().invoke(app, ["watch", str(tmp_path), "--once", "--here"])
    assert done.exit_code == 0, done.output
    assert done.stdout == f"nothing new in {tmp_path}\n"
    both = CliRunner().invoke(app, ["watch", str(tmp_path), "--once", "--as-deployed"])
    assert both.exit_code == 2
    assert "takes these from the deployment" in both.stderr
