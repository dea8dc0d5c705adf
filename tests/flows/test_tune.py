"""`ddim tune`: lists are found, proven by the grid, kept, and what cannot be tuned is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from safetensors.torch import load, load_file, save, save_file
from typer.testing import CliRunner

from ddim_core.samplers.name import parse_sampler
from ddim_core.text2image.embedded import embedded_base
from flows.cli.app import app
from flows.requests.flat import build
from flows.requests.tuning import TuneRequest
from tasks.storage import store
from tests.core.pipelines.tiny import PIPELINES
from tests.networks import save_clip

pytestmark = pytest.mark.timeout(300)
SMALL: dict[str, Any] = {
    "calls": [3], "tuning_images": 16, "budget": 60, "long_steps": 12, "n_images": 12,
    "stock_steps": [5], "features": "pixels",
}  # fmt: skip
BASE = str(embedded_base())
AWAY = "does not answer"  # all was well but for the server


def tune(**asked: Any) -> Any:
    from flows.tune import tune as flow

    return flow(**(SMALL | asked))


def ddim(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def rows_of(outcome: Any) -> dict[str, Any]:
    from tasks.storage.cell_rows import read_rows

    return {f"{row.sampler} {row.steps}": row for row in read_rows(outcome.grid.cells).rows}


def logged(outcome: Any) -> tuple[Any, dict[str, Any]]:
    """The tuning's run in MLflow, and those below it by their samplers."""
    from tasks.tracking import database

    client = database.client()
    experiment = client.get_experiment_by_name("tune").experiment_id
    runs = client.search_runs([experiment])
    below = {run.data.params["sampler"]: run for run in runs if "sampler" in run.data.params}
    mine = [below[name] for name in outcome.samplers]
    parents = {run.data.tags["mlflow.parentRunId"] for run in mine}
    assert {run.info.status for run in runs} == {"FINISHED"}
    return client.get_run(parents.pop()), {name: below[name] for name in outcome.samplers}


@pytest.fixture(scope="module")
def found(server: str, toy: str) -> Any:
    return tune(checkpoint=toy, samplers=["dpmpp_2m", "ddim"], seed=71)


def test_what_is_found_is_scored_beside_the_stock_settings(found: Any) -> None:
    assert len(found.samplers) == 2
    names = [parse_sampler(text) for text in found.samplers]
    assert [name.name for name in names] == ["dpmpp_2m", "euler"]
    assert all(name.n_listed == 3 for name in names)
    rows = rows_of(found)
    assert set(rows) == {
        "ddim 3", "ddim 5", "dpmpp_2m 3", "dpmpp_2m 5", *(f"{text} 3" for text in found.samplers),
    }  # fmt: skip
    listed = rows[f"{found.samplers[0]} 3"]
    assert listed.timesteps == list(names[0].timesteps)
    assert listed.nfe == 3
    page = Path(found.report).read_text()
    assert found.samplers[0] in page.replace("&amp;", "&")
    assert "The budget of 60 network calls an image was spent" in page
    assert any(sentence.startswith("S = 3, dpmpp_2m, tuned: FID") for sentence in found.reading)
    parent, runs = logged(found)
    assert set(runs) == set(found.samplers)
    for one in found.settings:
        told = runs[one.sampler].data
        assert told.params["calls"] == "3"
        assert told.metrics["tuned"] == one.judged.tuned.mean
        assert told.metrics["stock_high"] == one.judged.stock.high
        assert told.metrics["candidates"] == one.found.n_tried
    assert parent.data.metrics["best_gain"] == max(one.judged.gain.mean for one in found.settings)
    assert parent.data.tags["ddim.proof"] == Path(found.grid.report).parent.name
    assert found.reading[0] in parent.data.tags["mlflow.note.content"]


def test_a_second_run_asks_the_network_nothing_and_a_killed_search_goes_on(
    found: Any, toy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddim_core.tuning.aims import ToLongRun
    from tasks.storage import places

    asked: list[str] = []
    measured = ToLongRun.of

    def counted(self: Any, runs: Any, sampler: Any, *more: Any) -> Any:
        asked.append(sampler.text)
        return measured(self, runs, sampler, *more)

    monkeypatch.setattr(ToLongRun, "of", counted)
    again = tune(checkpoint=toy, samplers=["dpmpp_2m", "ddim"], seed=71)
    assert asked == []
    assert again.samplers == found.samplers
    assert again.grid.images_drawn == 0

    # Killed: no task's result is there, and the records of what was measured end in the middle.
    shutil.rmtree(places.local_dir("prefect"))
    lines = 0
    for path in places.local_dir("work").glob("tune-*.jsonl"):
        content = path.read_bytes()
        lines += content.count(b"\n")
        path.write_bytes(content[: len(content) // 2])
    third = tune(checkpoint=toy, samplers=["dpmpp_2m", "ddim"], seed=71, n_images=0)
    assert third.samplers == found.samplers
    n_judged = 2 * 2  # fresh images under both settings, tuned and as they stand: never recorded
    assert 0 < len(asked) - n_judged < lines - 5


def test_a_list_found_elsewhere_is_looked_at_and_judged(found: Any, toy: str) -> None:
    known = "dpmpp_2m?timesteps=[990,980,970]"
    outcome = tune(checkpoint=toy, samplers=["dpmpp_2m"], seed=71, n_images=0, known=[f"{known}@4"])
    said = next(s for s in outcome.reading if known in s)
    assert "found elsewhere, serves no longer" in said
    strangers = ["dpmpp_2m?timesteps=[900,100]", "dpmpp_2m?timesteps=[5000,500,100]"]
    again = tune(checkpoint=toy, samplers=["dpmpp_2m"], seed=71, n_images=0, known=strangers)
    assert again.report != outcome.report
    page = Path(again.report).read_text()
    assert page.count("it was not looked at") == 2
    assert not any("found elsewhere" in said for said in again.reading)
    with pytest.raises(ValueError, match="known has 'dpmpp_2m', which lists no timesteps"):
        build(TuneRequest, {"known": ["dpmpp_2m"]})


def test_distances_are_taken_in_features_and_fids_where_that_is_asked_for(
    found: Any, toy: str, tmp_path: Path
) -> None:
    def distance(outcome: Any) -> float:
        table = Path(outcome.report).read_text().partition("nearer by</th>")[2]
        return float(re.findall(r"<td[^>]*>([\d.e-]+) <span", table)[0])

    asked: dict[str, Any] = {"checkpoint": toy, "samplers": ["dpmpp_2m"], "seed": 71, "n_images": 0}
    ends, features = tune(**asked), tune(**asked, distance="features")
    by_fid = tune(**asked, distance="fid", known=features.samplers)
    (one,) = by_fid.settings
    judged = one.judged
    assert judged.on_tuning.mean <= one.found.start_distance  # no list that it started from is less
    assert judged.stock.mean - judged.tuned.mean == pytest.approx(judged.gain.mean)
    assert one.long.low < one.long.mean < one.long.high
    assert one.known[0].sampler == features.samplers[0]
    said = Path(by_fid.report).read_text()
    assert "FIDs to the real images in pixels features" in said
    assert f"; FID {one.long.mean:.3g}</td>" in said  # the long run's own
    assert "The proof was left out" in said  # beside what is said of the list found elsewhere
    assert "the grid below" not in said
    assert 30 < one.found.spent <= SMALL["budget"]  # half of it by distance, the rest by FID
    assert "long run is too short" not in said  # nothing is taken from it
    (least,) = tune(**asked | {"distance": "fid", "budget": 3}).settings  # of one candidate
    assert least.found.spent == pytest.approx(3)

    # The same FIDs where the real images are known by their statistics alone.
    from ddim_core.features.clip_dino import ClipFeatures
    from ddim_core.images.load import load_images

    clip = save_clip(tmp_path / "clip")
    seen = ClipFeatures(str(clip))(load_images("digits", "train", 8, 1).images)
    np.savez(tmp_path / "stats.npz", mu=seen.mean(0), sigma=np.cov(seen.T))
    asked |= {"distance": "fid", "features": "clip-vit-b-32", "feature_weights": str(clip)}
    told, known = tune(**asked), tune(**asked, dataset=str(tmp_path / "stats.npz"))
    assert told.samplers == known.samplers
    figures = [outcome.settings[0].judged.tuned.mean for outcome in (told, known)]
    assert figures[0] == pytest.approx(figures[1], rel=1e-4)
    page = Path(features.report).read_text()
    assert "between the pixels features of the ends" in page
    assert "features of the ends" not in Path(ends.report).read_text()
    # Pixels as features go from 0 to 1, half of [-1, 1], and are clipped.
    assert 0.0 < distance(features) < 0.51 * distance(ends)


def test_a_pipeline_is_tuned_by_its_own_call_on_prompts_of_their_own(
    server: str, tmp_path: Path
) -> None:
    PIPELINES["sd3"].make().save_pretrained(tmp_path / "sd3")
    save_file(PIPELINES["sd3"].conditions(range(8)), tmp_path / "prompts.safetensors")
    asked: dict[str, Any] = {
        "checkpoint": str(tmp_path / "sd3"), "prompts": str(tmp_path / "prompts.safetensors"),
        "dataset": "emoji", "samplers": ["flow_euler"], "guidance": [30.0], "tuning_images": 4,
        "budget": 30, "long_steps": 4, "calls": [2], "n_images": 0,
    }  # fmt: skip
    outcome = tune(**asked)
    (text,) = outcome.samplers
    assert len(parse_sampler(text).own_sigmas) == 2
    assert outcome.grid is None
    page = Path(outcome.report).read_text()
    assert "The proof was left out" in page
    assert "the grid scores those that were tuned on too" in page
    part = tune(**asked, guidance_interval=[0.0, 0.9])  # the first call is not guided
    assert "Guidance is at noise levels from 0 to 0.9 alone" in Path(part.report).read_text()
    apart = [one.settings[0].judged.stock.mean for one in (outcome, part)]
    assert 0.0 < apart[1] != apart[0]
    with pytest.raises(ValueError, match=r"^guidance is 0\.5; "):  # not the sampler's fault
        tune(**asked | {"guidance": [0.5]})


def test_a_list_is_tuned_under_an_interval_of_guidance(server: str) -> None:
    asked: dict[str, Any] = {
        "class_conditional": True, "train_steps": 3, "samplers": ["dpmpp_2m"], "calls": [2],
        "guidance": [4.0], "stock": ["dpmpp_2m"], "stock_steps": [3],
    }  # fmt: skip
    whole, part = tune(**asked), tune(**asked, guidance_interval=[0.0, 4.0])
    # The noisiest calls are not guided: another long run, and fewer evaluations of the network.
    assert whole.settings[0].judged.stock.mean != part.settings[0].judged.stock.mean
    assert {row.nfe for row in rows_of(whole).values()} == {4, 6}
    assert {row.nfe for row in rows_of(part).values()} <= {3, 4, 5}  # each has a guided call
    assert {row.guidance_interval for row in rows_of(part).values()} == {"0,4"}
    free_to_search = asked | {
        "guidance": [1.0, 4.0], "guidance_interval": ["search"], "distance": "fid", "calls": [3],
        "tuning_images": 32, "budget": 30,
    }  # fmt: skip
    found = tune(**free_to_search)
    free, guided = found.settings
    assert free.narrowed is None
    assert guided.narrowed.interval is not None  # an untrained network is best guided at few calls
    low, high = guided.narrowed.interval
    assert found.samplers == (f"{free.sampler}@1", f"{guided.sampler}@4@{low:.12g}-{high:.12g}")
    assert (
        f"guided at noise levels from {low:g} to {high:g} alone" in Path(found.report).read_text()
    )
    mine = rows_of(found)[f"{guided.sampler} 3"]
    assert mine.guidance_interval == f"{low:.12g},{high:.12g}"
    assert mine.nfe == 3 + sum(low <= level <= high for level in guided.sigmas[:3])
    proof = " ".join(Path(found.report).read_text().split())
    assert "S = 3, dpmpp_2m, tuned (guidance 4)" in proof  # the list for all levels is there too
    assert "The proof holds the list found for guidance at all levels" in proof
    assert "The proof holds" not in Path(tune(**free_to_search, n_images=0).report).read_text()
    assert "scores it on other noise, against the same real images." in proof
    assert "corrected for all tests of them, the intervals by Bonferroni" in proof
    with pytest.raises(ValueError, match="guidance_interval is 500,600, and holds none of the"):
        tune(**asked | {"guidance_interval": [500.0, 600.0], "n_images": 0})


def test_a_flow_is_proven_beside_its_own_sampler(server: str) -> None:
    outcome = tune(
        objective="flow", train_steps=3, samplers=["unipc"], calls=[2], stock_steps=[3], budget=8
    )
    euler = tune(
        objective="flow", train_steps=3, samplers=["flow_euler"], calls=[2], stock_steps=[3],
        budget=8,
    )  # fmt: skip
    assert "own 2" not in rows_of(euler)  # flow_euler draws the same
    assert "flow_euler 2" in rows_of(euler)
    assert set(rows_of(outcome)) == {
        "own 2", "own 3", "unipc 2", "unipc 3", f"{outcome.samplers[0]} 2",
    }  # fmt: skip
    assert any(said.startswith("S = 2, unipc, tuned: FID") for said in outcome.reading)


def test_a_proof_that_cannot_be_is_refused_before_the_search(server: str, toy: str) -> None:
    from tasks.storage import places

    def searches() -> set[Path]:
        return set(places.local_dir("work").glob("tune-*"))

    before = searches()
    with pytest.raises(ValueError, match="has no labels, which a classifier needs"):
        tune(
            checkpoint=toy, samplers=["dpmpp_2m"], seed=72, dataset="smileys", features="classifier"
        )
    assert searches() == before


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"samplers": ["euler_a"]}, "draws noise on the way"),
        ({"samplers": ["dpmpp_2n"]}, "did you mean"),
        ({"samplers": ["dpmpp_2m/karras"]}, "says already where it asks"),
        ({"budget": 3, "calls": [4]}, "budget is 3 network calls"),
        ({"long_steps": 8, "calls": [8]}, "long_steps is 8, and calls is 8"),
        ({"tuning_prompts": "x.txt"}, "the toy model is told of no text"),
        (
            {"checkpoint": "x", "prompts": "a.safetensors", "tuning_prompts": "b.txt"},
            "give both encoded",
        ),
        ({"n_images": 1}, "n_images"),
        ({"guidance_interval": [0.0, 1.0]}, "guidance_interval is given, and guidance is 1"),
        ({"guidance_interval": ["search"], "guidance": [2.0]}, "take distance fid"),
        ({"guidance_interval": ["search"], "distance": "fid"}, "search, and guidance is 1"),
        ({"guidance_interval": ["search", 1.0]}, "give LOW,HIGH or search alone"),
        ({"guidance_interval": ["abc", "abc"]}, "is 'abc'; it must be a number or search$"),
        ({"known": ["unipc@4"]}, "known has 'unipc', which lists no timesteps"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(
    asked: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        build(TuneRequest, asked)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("tune", "--samplers", "unipc"), "unipc cannot be told where to ask the network"),
        (("tune", "--checkpoint", "TOY", "--samplers", "deis"), "deis cannot be told where to ask"),
        (("tune", "--objective", "flow", "--samplers", "dpmpp_2m"), "take unipc or flow_euler"),
        (("tune", "--samplers", "heun"), "calls is 4; take an odd number"),
        (("tune", "--checkpoint", BASE, "--resolution", "20"), "multiples of 8 pixels; give 16"),
        (("grid", "--checkpoint", "TWO", "--resolution", "20"), "multiples of 8 pixels; give 16"),
        (("grid", "--checkpoint", "TWO", "--guide", "TOY", "--guidance", "2"), "told of a text"),
        (("grid", "--checkpoint", "TOY", "--samplers", "flow_euler"), "flow_euler does not fit"),
        (
            ("grid", "--checkpoint", BASE, "--samplers", "unipc", "--trajectories", "3"),
            "own call draws it, which keeps no x0; give 0",
        ),
        (
            ("grid", "--checkpoint", "TWO", "--samplers", "dpmpp_2m", "--steps", "1001"),
            "dpmpp_2m with 1001 steps visits",
        ),
        (
            ("grid", "--checkpoint", "TOY", "--steps", "1001"),
            "1001 steps of 1000 training",
        ),
        (("paper", "--checkpoint", "TOY", "--steps", "1001"), "1001 steps of 1000 training"),
        (("grid", "--checkpoint", "LARGE"), "256 x 256 pixels take a CPU too long"),
        (("tune", "--checkpoint", "LARGE"), "256 x 256 pixels take a CPU too long"),
        (
            ("tune", "--n-images", "0", "--distance", "fid", "--checkpoint", "LARGE"),
            "256 x 256 pixels take a CPU too long",
        ),
        (("tune", "--n-images", "0", "--checkpoint", "LARGE"), AWAY),
        (("tune", "--checkpoint", "TOY", "--stock", "flow_euler"), "flow_euler does not fit"),
        (("tune", "--stock", "flow_euler"), "flow_euler does not fit"),
        (("lora", "style", "--targets", "wings"), "there is no target module 'wings'"),
    ],
)
def test_what_files_tell_is_refused_before_a_server_is_asked(
    asked: tuple[str, ...], told: str, toy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")  # where nobody answers
    for name in ("1", "2") if "TWO" in asked else ():  # a folder of snapshots
        shutil.copytree(BASE, tmp_path / name)
    if "LARGE" in asked:
        shutil.copytree(toy, large := tmp_path / "large")
        config = large / "unet" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": 256}))
        asked = (*asked[:-1], str(large))
    done = ddim(*(word.replace("TOY", toy).replace("TWO", str(tmp_path)) for word in asked))
    expected = 1 if told == AWAY else 2  # nothing of it trains a classifier
    assert (done.exit_code, told in done.stderr) == (expected, True), done.stderr


def test_planted_failures_are_told_of_one_search(server: str, toy: str, tmp_path: Path) -> None:
    """A network whose timestep counts for nothing, 4 images, 4 steps of a long run, 12 calls."""
    shutil.copytree(toy, tmp_path / "deaf")
    weights = tmp_path / "deaf" / "unet" / "diffusion_pytorch_model.safetensors"
    held = load_file(weights)
    embedding = {name: tensor * 0.0 for name, tensor in held.items() if "time_emb" in name}
    assert embedding
    save_file(held | embedding, weights, {"format": "pt"})
    done = ddim(
        "tune", "--checkpoint", str(tmp_path / "deaf"), "--samplers", "dpmpp_2m", "--calls", "3",
        "--tuning-images", "4", "--budget", "12", "--long-steps", "4", "--n-images", "0",
        "--search", "family", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    outcome = json.loads(done.stdout)
    (found,) = outcome["settings"]
    assert found["sampler"] in outcome["samplers"]
    assert outcome["rows"] == []
    page = Path(outcome["report"]).read_text()
    for told in (
        "It was tuned on 4 images, which are few", "The long run is too short for it",
        "The budget of 12 network calls an image was spent", "answers alike at all timesteps",
    ):  # fmt: skip
        assert told in " ".join(found["warnings"])
        assert told in page
    assert "two ends and rho were searched alone" in page


def test_prompts_are_dealt_out(tmp_path: Path, server: str) -> None:
    from tasks.images.stored_prompts import store_prompts, stored_prompts
    from tasks.tuning.prompts import deal, deal_conditions

    prompts = [f"prompt {i}" for i in range(8)]
    dealt = deal(store_prompts(prompts), None)
    parts = [stored_prompts(dealt.tuning), stored_prompts(dealt.fresh)]
    scored = [json.loads(line)["text"] for line in Path(dealt.scored).read_text().splitlines()]
    assert sorted([*parts[0], *parts[1], *scored]) == prompts
    assert not dealt.note
    # Subject by subject, again and again: every fourth is of 19 of them.
    in_turn = [f"subject {i} in colour {k}" for k in range(7) for i in range(76)]
    tuning = stored_prompts(deal(store_prompts(in_turn), None).tuning)
    assert len(tuning) == 133
    assert len({text.partition(" in ")[0] for text in tuning}) > 50
    rows = torch.arange(532)[:, None]
    told = {"embeds": rows % 76, "k": torch.div(rows, 76, rounding_mode="floor"), "all": rows[:1]}
    halves = [load(store.get(half)) for half in deal_conditions(store.put(save(told), "told"))]
    dealt_rows = torch.cat([76 * half["k"] + half["embeds"] for half in halves])
    assert torch.equal(dealt_rows.sort(dim=0).values, rows)
    assert min(len(half["embeds"].unique()) for half in halves) > 70  # every second: 38 of them
    assert [len(half["all"]) for half in halves] == [1, 1]
    assert "were tuned on as well" in deal(store_prompts(prompts[:2]), None).note
    twice = deal(store_prompts(prompts * 2), None)
    assert not set(stored_prompts(twice.tuning)) & set(stored_prompts(twice.fresh))
    other = deal(store_prompts(prompts), store_prompts(["other"]))
    assert other.note == "The prompts that were tuned on were judged on as well, with other noise."
    assert (
        "Some prompts that are scored" in deal(store_prompts(prompts), store_prompts(prompts)).note
    )
