"""Runs in Prefect's UI are named after what they do; no name can fail a run or reach a key."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from prefect._internal.engine import resolve_custom_task_run_name
from prefect.context import FlowRunContext

from ddim_core.diffusion.specs import GridCell, SamplerSpec
from ddim_core.networks.specs import TrainSpec
from flows.run import naming
from tasks.sampling.native import sample_shard
from tasks.storage.naming import DETAILS, LONGEST, bounded, named, place_name, run_name

FLOWS = ("fid_grid", "until_decided", "snapshots", "paper", "swiss_roll", "train_toy", "train_base",
         "lora_style", "lora_subject", "checkpoint_watch")  # fmt: skip


def flow_of(name: str) -> Any:
    module = __import__(f"flows.{name}", fromlist=[name])
    return getattr(module, name)


def called(monkeypatch: pytest.MonkeyPatch, name: str, **asked: Any) -> str:
    """What a run of a flow with these parameters is called."""
    flow = flow_of(name)
    given = inspect.signature(flow.fn).bind(**asked)
    given.apply_defaults()
    context = FlowRunContext.model_construct(flow=flow, parameters=dict(given.arguments))
    monkeypatch.setattr(naming.FlowRunContext, "get", lambda: context)
    assert flow.flow_run_name is naming.flow_name
    return naming.flow_name()


@pytest.mark.parametrize(
    ("flow", "asked", "wanted"),
    [
        ("fid_grid", {}, "fid-grid toy-digits 4 S x 5 lines"),
        ("fid_grid", {"seed": 1}, "fid-grid toy-digits 4 S x 5 lines seed=1"),
        ("fid_grid", {"checkpoint": "runs/faces/step-1000", "steps": [10, 20], "etas": [0.0],
                      "threads": 2},
         "fid-grid runs/faces/step-1000 2 S x 1 lines steps=10,20 etas=0"),
        ("until_decided", {"goal": "front"}, "until-decided toy-digits 4 S x 5 lines goal=front"),
        ("snapshots", {"checkpoints": ["runs/a", "runs/b"], "steps": [10]},
         "snapshots runs/a, runs/b 1 S x 5 lines steps=10"),
        ("paper", {"dataset": "emoji"}, "paper toy-emoji 5 S x 5 lines"),
        ("swiss_roll", {"dataset": "moons", "seed": 3}, "swiss-roll moons 4 S x 3 lines seed=3"),
        ("train_toy", {"dataset": "emoji"}, "train-toy emoji"),
        ("train_base", {"steps": 7}, "train-base emoji steps=7"),
        ("lora_style", {}, "lora-style style of embedded images on embedded base"),
        ("lora_subject", {"title": "cat", "data": "cats", "rank": 4},
         "lora-subject cat of cats images on embedded base rank=4"),
        ("checkpoint_watch", {"sources": ["runs/a", "hub:o/n"]},
         "checkpoint-watch runs/a, hub:o/n"),
    ],
)  # fmt: skip
def test_a_flow_run_says_what_it_is_of(
    monkeypatch: pytest.MonkeyPatch, flow: str, asked: dict[str, Any], wanted: str
) -> None:
    assert called(monkeypatch, flow, **asked) == wanted


def test_long_places_with_one_ending_are_told_apart_and_secrets_are_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = [f"/data/{'deep/' * 9}{run}/checkpoints/step-100000/unet" for run in "ab"]
    one, other = (called(monkeypatch, "fid_grid", checkpoint=place) for place in places)
    assert one != other
    assert "checkpoints/step-100000/unet~" in one
    assert "hunter2" not in called(monkeypatch, "fid_grid", checkpoint="http://me:hunter2@host/x")


@pytest.mark.parametrize(
    "odd",
    [
        {"etas": None}, {"etas": ["x"]}, {"steps": 5}, {"steps": [[1]]}, {"checkpoint": 7},
        {"dataset": None}, {"dataset": "{a}\n\x1b[31m" * 90}, {"guidance": [[]]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("flow", FLOWS)
def test_an_odd_parameter_costs_a_flow_run_detail_and_no_more(
    monkeypatch: pytest.MonkeyPatch, flow: str, odd: dict[str, Any]
) -> None:
    known = inspect.signature(flow_of(flow).fn).parameters
    name = called(monkeypatch, flow, **{k: v for k, v in odd.items() if k in known})
    assert name.startswith(flow.replace("_", "-"))
    assert name.isprintable()
    assert len(name) <= LONGEST


def test_task_runs_say_what_they_are_of() -> None:
    cell = GridCell(SamplerSpec(steps=50, eta=0.2))
    parameters = {"cell": cell, "checkpoint": {}, "start": 0, "stop": 64, "execution": None}
    name = resolve_custom_task_run_name(sample_shard, parameters)  # type: ignore[arg-type]
    assert name == "sample shard S=50 eta=0.2 images 0-63"
    told = named(sample_shard, f"{cell.label} shard 0")
    for one in (told, cloudpickle.loads(cloudpickle.dumps(told))):  # as other processes get it
        assert resolve_custom_task_run_name(one, parameters) == "S=50 eta=0.2 shard 0"
    assert sample_shard.name == "sample-shard"
    trained = run_name("train-toy")(parameters={"spec": TrainSpec(seed=3)})
    assert trained == "train toy 8x8 2500 steps seed 3"


@pytest.mark.parametrize("odd", [{}, {"spec": None}, {"rows": []}, {"rows": [{}]}, {"cell": 1}])
def test_an_odd_parameter_costs_a_task_run_detail_and_no_more(odd: dict[str, Any]) -> None:
    for task in DETAILS:
        assert run_name(task)(parameters=odd).startswith(task.replace("-", " "))
    braces = named(sample_shard, "{start} {0} {" + "x" * 500)
    found = resolve_custom_task_run_name(braces, {"start": 1})  # type: ignore[arg-type]
    assert found.startswith("{start} {0} {xxx")
    assert len(found) == LONGEST


def test_names_are_in_no_key_and_every_task_has_one() -> None:
    from ddim_core.common.digest import _closure

    root = Path(naming.__file__).parents[2]
    sources = sorted((root / "tasks").rglob("*.py"))
    cached = [".".join(p.relative_to(root).with_suffix("").parts) for p in sources
              if "\n@cached_task" in p.read_text()]  # fmt: skip
    for module in ("sampling.native", "sampling.scheduled", "sampling.pipeline", "cells.embed",
                   "cells.score", "cells.extractor", "checkpoints.train", "images.prepare",
                   "lora.train"):  # fmt: skip
        assert f"tasks.{module}" in cached
        assert "tasks.storage.naming" not in _closure(f"tasks.{module}")
    assert bounded("a\nb\tc") == r"a\nb\tc"
    assert place_name("") == ""
