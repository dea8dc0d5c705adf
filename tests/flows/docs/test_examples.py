"""The examples of the docs do what they say: a training loop's checkpoint is announced, whole."""

from __future__ import annotations

import runpy
import time
from pathlib import Path

import pytest
import yaml
from diffusers import DDPMPipeline
from prefect.client.orchestration import get_client
from prefect.events.filters import EventFilter

from flows.run.announce import EVENT
from tests.flows.grids import PROJECT

EXAMPLES = PROJECT / "docs" / "examples"
WITHIN = 60.0  # seconds for an event to reach the database of a busy machine


def test_a_saved_pipeline_is_whole_under_its_name_and_announced(
    server: str, toy: str, tmp_path: Path
) -> None:
    announce = runpy.run_path(str(EXAMPLES / "announce.py"))
    checkpoint = tmp_path / "step-7001"
    announce["save_and_announce"](DDPMPipeline.from_pretrained(toy), checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["step-7001"]
    assert (checkpoint / "model_index.json").is_file()
    named = {"prefix": [EVENT]}
    wanted = EventFilter.model_validate(
        {"event": named, "resource": {"id": [f"ddim.checkpoint.{checkpoint.name}"]}}
    )
    deadline = time.monotonic() + WITHIN
    with get_client(sync_client=True) as client:
        while not (found := client.read_events(wanted, limit=2).events):
            assert time.monotonic() < deadline, "no event came"
            time.sleep(0.5)
    assert [event.payload for event in found] == [{"path": str(checkpoint)}]


def test_without_a_server_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.setattr("prefect.events.emit_event", lambda *_, **__: pytest.fail("an event"))
    runpy.run_path(str(EXAMPLES / "announce.py"))["announce"](tmp_path)


def test_what_a_person_writes_is_no_part_of_the_workflows_commands() -> None:
    told = yaml.safe_load((EXAMPLES / "gate.yml").read_text(encoding="utf-8"))
    (job,) = told["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert any("--gate" in command for command in commands)
    assert not any("${{" in command for command in commands)
