"""MLflow's database, whose making is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from alembic.ddl.impl import DefaultImpl

from tasks.storage import places
from tasks.tracking import database
from tasks.tracking.client import find_experiment

KILLED_AT = 12  # of some dozens of columns that are added


def make_until_killed() -> None:
    add, added = DefaultImpl.add_column, []

    def add_column(*given: Any, **named: Any) -> None:
        add(*given, **named)
        added.append(given)
        if len(added) == KILLED_AT:
            os.kill(os.getpid(), signal.SIGKILL)

    DefaultImpl.add_column = add_column  # type: ignore[method-assign]  # in a process of its own
    find_experiment(database.client(), "one")


def test_a_database_whose_making_was_killed_is_made_again_and_one_that_is_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", places.default_tracking_uri())
    killed = multiprocessing.get_context("fork").Process(target=make_until_killed)
    killed.start()
    killed.join(60)
    assert killed.exitcode == -signal.SIGKILL
    experiment = find_experiment(database.client(), "one")
    before = (tmp_path / "data" / "mlflow.db").read_bytes()
    assert database.client().get_experiment(experiment).name == "one"
    assert (tmp_path / "data" / "mlflow.db").read_bytes() == before


def test_a_file_system_without_hard_links_gets_its_database_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(places, "DATA_URL", str(tmp_path / "data"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", places.default_tracking_uri())
    monkeypatch.setattr(os, "link", no_links)
    assert find_experiment(database.client(), "one")
    assert (tmp_path / "data" / "mlflow.db").exists()
