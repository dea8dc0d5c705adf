"""A grid's request: what is drawn where nothing is said, and what keeps its identity."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from typer.testing import CliRunner

from ddim_core.common.digest import digest, said_by
from ddim_core.diffusion.specs import USUAL_ETAS
from flows.cli import app
from flows.cli.commands import flows
from flows.fid_grid import fid_grid
from flows.requests.flat import build, values
from flows.requests.grid import GridRequest
from flows.requests.race import RaceRequest, SnapshotRequest
from flows.requests.samplers import cells
from flows.requests.samplers.cells import Sampled, cells_of
from flows.requests.samplers.choice import SamplerChoice
from flows.requests.tuning import TuneRequest
from flows.snapshots import snapshots
from flows.until_decided import until_decided

CONTENT = "c" * 64  # of a data set
# Of the version that drew sigma-hat wherever it was not switched off.
EARLIER = {
    "usual": "9c5b7ede50e908295607455226986087182d832cf65a06ff01b9a1407e64ecb2",
    "two lines and sigma-hat": "9c0deaa0816e1a8b54c2dcbdd5466ef019f81ae61e4c04321d480443fcc84585",
    "without": "cd6c574d0a3bbcbbe6e92c38c74e2b15f258dfd2d9ee4bc47e58927377bf7709",
}
# Of the version whose tunings had 128 images and no interval of guidance.
TUNED_EARLIER = [
    "89d0d7780b8f80bed4ad4cfc8360acab14f16c6a9bbbe3e22c69f4e05fff120d",
    "b3c49ed08aa362e5f151a23e25ac4f4672f29070893b470c4fa2b4b62371f71b",
]


def request(**asked: Any) -> GridRequest:
    return build(GridRequest, asked)


def lines(asked: GridRequest) -> list[str]:
    return list(dict.fromkeys(cell.sampler.line for cell in asked.cells(Sampled(1000))))


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [
        ({}, True),
        ({"etas": [0, 0.2, 0.5, 1]}, True),  # what Prefect's form has
        ({"etas": [0.0, 1.0]}, False),
        ({"etas": [1.0]}, False),
        ({"etas": [0.0, 1.0], "sigma_hat": True}, True),
        ({"etas": [], "sigma_hat": True}, True),
        ({"sigma_hat": False}, False),
    ],
)
def test_sigma_hat_is_drawn_by_default_and_where_it_is_asked_for(
    asked: dict[str, Any], drawn: bool
) -> None:
    assert ("sigma-hat (clips)" in lines(request(**asked))) == drawn
    race = build(RaceRequest, asked)
    assert ("sigma-hat (clips)" in lines(race.whole)) == drawn


def test_the_usual_grid_has_20_cells_and_unchanged_requests_their_identity() -> None:
    assert len(request().cells(Sampled(1000))) == 20
    found = {
        "usual": request(),
        "two lines and sigma-hat": request(etas=[0.0, 1.0], sigma_hat=True),
        "without": request(sigma_hat=False),
    }
    assert {name: asked.identity(CONTENT) for name, asked in found.items()} == EARLIER
    assert request(sigma_hat=True).identity(CONTENT) == EARLIER["usual"]
    assert request(**values(request())) == request()  # as a baseline's grid is asked for


def test_an_unchanged_tuning_keeps_its_identity() -> None:
    def identity(**asked: Any) -> str:
        return build(TuneRequest, asked).identity(CONTENT)

    assert [identity(), identity(search="family", tuning_images=64)] == TUNED_EARLIER
    assert identity(tuning_images=128) == TUNED_EARLIER[0]
    assert identity(distance="fid") != identity(distance="fid", tuning_images=512)
    asked = build(TuneRequest, {"distance": "fid"})
    assert [asked.tuning_images(n) for n in (None, 64, 2048)] == [128, 512, 4096]


def test_a_number_format_is_of_every_cell_and_of_the_identity_where_it_is_not_the_usual() -> None:
    half = request(dtype="bfloat16", samplers=["ddim", "dpmpp_2m"])
    assert {cell.dtype for cell in half.cells(Sampled(1000))} == {"bfloat16"}
    assert half.identity(CONTENT) != request(samplers=["ddim", "dpmpp_2m"]).identity(CONTENT)
    with pytest.raises(ValueError, match="dtype is 'fp16'"):
        request(dtype="fp16")


def test_without_lines_of_its_own_a_grid_is_refused_and_sigma_hat_is_no_point_of_it() -> None:
    with pytest.raises(ValueError, match="etas is empty and sigma_hat is off"):
        request(etas=[])
    with pytest.raises(ValueError, match="which is no cell of the grid"):
        request(etas=[0.0], at="5,sigma-hat")


@pytest.mark.parametrize(
    ("words", "sigma_hat"),
    [
        ("", None),
        ("--etas 0,1", False),
        ("--etas 0,0.2,0.5,1", False),
        ("--etas 0,1 --sigma-hat", True),
        ("--no-sigma-hat", False),
        ("--until-decided --etas 0,1", False),
    ],
)
def test_the_command_draws_the_lines_that_were_named(
    monkeypatch: pytest.MonkeyPatch, words: str, sigma_hat: bool | None
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(flows, "run_grid", lambda given, _how: asked.append(given))
    monkeypatch.setattr(flows, "run_race", lambda given, _how: asked.append(given))
    assert CliRunner().invoke(app.app, ["grid", *words.split()]).exit_code == 0
    assert asked[0].get("sigma_hat") == sigma_hat


@pytest.mark.parametrize("flow", [fid_grid, until_decided, snapshots])
def test_the_form_of_a_deployment_says_when_sigma_hat_is_drawn_and_that_it_clips(flow: Any) -> None:
    fields = parameter_schema(flow).properties
    assert list(fields["etas"]["default"]) == USUAL_ETAS
    assert fields["sigma_hat"].get("default") is None
    said = " ".join(fields["sigma_hat"]["description"].split())
    assert "clips each predicted x0" in said
    assert "only where etas are the usual ones" in said
    assert "sigma-hat alone still does" in fields["clip"]["description"]


DDIM = {"_class_name": "DDIMScheduler", "beta_schedule": "linear", "steps_offset": 1}


def of_pipeline(scheduler: dict[str, Any] | None = None, **asked: Any) -> list[str]:
    """The lines of a checkpoint that a pipeline alone draws."""
    known = Sampled(1000, is_native=False, pipeline="SomePipeline", scheduler=scheduler)
    return list(dict.fromkeys(c.sampler.line for c in request(**asked).cells(known)))


def test_sigma_hat_that_is_asked_for_is_refused_where_nothing_can_draw_it() -> None:
    assert of_pipeline() == ["own"]
    with pytest.raises(ValueError, match="sigma-hat is of the project's own sampler"):
        of_pipeline(sigma_hat=True)
    again = values(request())  # a baseline's grid is asked for by what the first settled
    assert of_pipeline(**again) == ["own"]


def test_eta_is_taken_by_own_where_its_class_has_one_and_refused_where_not() -> None:
    own = {"samplers": ["own"]}
    assert of_pipeline(DDIM, **own) == ["own"]  # the usual etas are not asked for
    assert of_pipeline(DDIM, **own, etas=[0.0, 0.5]) == ["own", "own (eta=0.5)"]
    parallel = {"samplers": ["DDIMParallelScheduler"]}
    assert of_pipeline(DDIM, **parallel, etas=[0.5]) == ["DDIMParallelScheduler (eta=0.5)"]
    assert request(**own, checkpoint="ann/model", etas=[0.5])  # open until it is opened
    with pytest.raises(ValueError, match="etas are given, and none of own has one"):
        of_pipeline({**DDIM, "_class_name": "EulerDiscreteScheduler"}, **own, etas=[0.5])


def test_two_spellings_of_one_sampler_are_one_line() -> None:
    asked = ["euler", "euler?steps_offset=1", "EulerDiscreteScheduler/linear", "euler/karras"]
    assert of_pipeline(DDIM, samplers=asked) == ["euler", "euler/karras"]


def keys(pipeline: str, **more: Any) -> dict[str, str]:
    known = Sampled(1000, is_native=not pipeline, pipeline=pipeline, scheduler=DDIM, **more)
    asked = request(samplers=["euler"] if pipeline else ["ddim", "euler"], etas=[0.0], steps=[8])
    return {cell.sampler.line: digest(cell) for cell in asked.cells(known)}


@pytest.mark.parametrize(
    ("library", "bare", "whole", "with_lora"),
    [
        ("diffusers", True, True, True),
        ("torch", True, True, True),
        ("transformers", False, True, True),
        ("peft", False, False, True),
        ("mlflow", False, False, False),
    ],
)
def test_another_version_of_what_draws_is_another_cell(
    library: str, bare: bool, whole: bool, with_lora: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora = {"loras": (("a" * 64, 1.0),)}
    before = keys(""), keys("SomePipeline"), keys("SomePipeline", **lora)
    monkeypatch.setattr(cells, "version", lambda n: "9.9" if n == library else version(n))
    after = keys(""), keys("SomePipeline"), keys("SomePipeline", **lora)
    assert after[0]["eta=0"] == before[0]["eta=0"]  # our own arithmetic
    changed = [b != a for b, a in zip(before, after, strict=True)]
    assert changed == [bare, whole, with_lora]


def test_a_cell_that_decides_may_be_spelled_otherwise() -> None:
    asked = {"samplers": ["euler", "ddim"], "steps": [8], "etas": [0.0]}
    spellings = (" 8, euler", "8,EulerDiscreteScheduler", "8,ddim", "8,0.0", "8,euler/linear")
    for at in spellings:
        assert request(**asked, at=at).verdict.at == at
    for at in ("8,unipc", "4,euler", "8,0.5", "8,eular"):
        with pytest.raises(ValueError, match="which is no cell of the grid"):
            request(**asked, at=at)


def test_a_sampler_with_a_list_makes_one_cell_at_its_length() -> None:
    asked = request(
        samplers=["dpmpp_2m", "dpmpp_2m?timesteps=[685,356,185,50]"], steps=[3, 10], etas=[0.0]
    )
    cells = asked.cells(asked.expected)
    assert [(cell.sampler.at, cell.sampler.steps) for cell in cells] == [
        ("dpmpp_2m", 3), ("dpmpp_2m", 10), ("dpmpp_2m?timesteps=[685,356,185,50]", 4),
    ]  # fmt: skip


def test_what_decides_is_handed_to_a_race_too_and_is_no_part_of_what_is_scored() -> None:
    assert request(decide_by="fid_inf").identity(CONTENT) == request().identity(CONTENT)
    judged = {"checkpoint": "some/pipeline", "image_scores": ("aesthetic", "hpsv2")}
    race = build(RaceRequest, {"decide_by": "hpsv2", **judged})
    assert race.whole.verdict.measure.title == "HPSv2"
    assert race.whole.verdict.against == "none"
    with pytest.raises(ValueError, match=r"'clip_score', which image_scores \(aesthetic, hpsv2\)"):
        build(RaceRequest, {"decide_by": "clip_score", **judged})
    with pytest.raises(ValueError, match="decide_by is 'lpips'; it must be one of fid, fid_inf"):
        request(decide_by="lpips")


def test_guidance_at_all_levels_of_a_flow_is_the_cell_without_an_interval() -> None:
    own = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    known = Sampled(1000, "flow_prediction", is_native=False, scheduler=own)
    plain, whole, part = (
        cells_of(SamplerChoice(guidance=(2.0,), guidance_interval=interval), known)
        for interval in ((), (0.0, 1.0), (0.0, 0.7))
    )
    assert plain == whole != part
    spelled = cells_of(SamplerChoice(guidance=(2.0, "2@0-1", "2@0-0.7")), known)
    assert spelled == [*plain, *part]


def test_samplers_have_the_scales_of_the_grid_or_one_of_their_own() -> None:
    asked = request(
        samplers=["unipc", "ddim@4", "dpmpp_2m?timesteps=[900,300]@ 4.0@0.20-3.0", "unipc@2"],
        guidance=["2", 3, "4@0.2-3"], steps=[4], etas=[0.0], class_conditional=True,
    )  # fmt: skip
    assert asked.grid.guidance == (2.0, 3.0, "4@0.2-3")
    assert asked.grid.samplers == (
        "unipc", "ddim@4", "dpmpp_2m?timesteps=[900,300]@4@0.2-3", "unipc@2",
    )  # fmt: skip
    assert [(cell.sampler.line, cell.sampler.steps) for cell in asked.cells(Sampled(1000))] == [
        ("unipc (g=2)", 4), ("unipc (g=3)", 4), ("unipc (g=4 in [0.2,3])", 4), ("eta=0 (g=4)", 4),
        ("dpmpp_2m?timesteps=[900,300] (g=4 in [0.2,3])", 2),
    ]  # fmt: skip
    assert request(**values(asked)) == asked
    with_ours = request(samplers=["unipc", "sigma-hat@2"], steps=[4], class_conditional=True)
    assert [cell.sampler.line for cell in with_ours.cells(Sampled(1000))] == [
        "unipc", "sigma-hat (clips, g=2)",
    ]  # fmt: skip
    alone = request(samplers=["unipc@2"], steps=[4], class_conditional=True)
    assert [cell.sampler.line for cell in alone.cells(Sampled(1000))] == ["unipc (g=2)"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"guidance": ["four"]}, "guidance: 'four' is no scale of guidance; give a number"),
        ({"guidance": ["4@3-2"]}, "'4@3-2' must have a low and a higher noise level"),
        ({"guidance": ["1@0-2"]}, "'1@0-2' has noise levels, and 1 is no guidance"),
        ({"guidance": ["4@0.2"]}, "'4@0.2' is no scale of guidance"),
        ({"samplers": ["unipc@"]}, "'' is no scale of guidance"),
        ({"samplers": ["unipc@4@"]}, "'4@' is no scale of guidance"),
        ({"samplers": ["@4"]}, "there is no sampler ''"),
        ({"samplers": ["unipc@2"]}, "guidance is 2, which needs a model that knows classes"),
    ],
)
def test_guidance_that_is_none_is_refused(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        request(**asked)


def test_a_classifier_is_not_trained_on_large_images_on_a_cpu() -> None:
    request().require_trainable(128)
    request(features="pixels").require_trainable(256)
    with pytest.raises(ValueError, match=r"of 256 x 256 pixels .* give --features inception-v3"):
        request().require_trainable(256)


def test_an_average_has_no_raw_weights() -> None:
    with pytest.raises(
        ValueError, match=r"weights is 'raw', and 'posthoc:x\?std=0.08' is a moving"
    ):
        request(checkpoint="posthoc:x?std=0.08", weights="raw")


def test_a_pipeline_asked_for_another_size_is_drawn_by_its_own_call_as_another_cell() -> None:
    known = Sampled(1000, is_native=False, pipeline="SomePipeline")
    choice = SamplerChoice(steps=(5,), samplers=("ddim", "own"))
    own, larger = cells_of(choice, known), cells_of(choice, replace(known, resolution=512))
    assert [cell.sampler.resolution for cell in larger] == [512] * len(own)
    assert [replace(c, sampler=replace(c.sampler, resolution=None)) for c in larger] == own
    assert "resolution" not in said_by(own[0].sampler)


def test_a_guide_is_part_of_a_cell_where_it_guides_alone(tmp_path: Path) -> None:
    own = {"_class_name": "EDMHeunScheduler"}
    known = Sampled(1000, is_native=False, scheduler=own)
    led = replace(known, guide="ab" * 32)
    choice = SamplerChoice(steps=(5,), guidance=(1.0, 2.0))
    plain, guided = cells_of(choice, known), cells_of(choice, led)
    assert plain[0] == guided[0]
    assert guided[1].label == "S=5 own (g=2 by ababab)"
    with pytest.raises(ValueError, match="guide is given, and the call of a SomePipeline guides"):
        cells_of(choice, replace(led, pipeline="SomePipeline"))
    (tmp_path / "a.pkl").write_bytes(b"x")
    one = {"checkpoint": str(tmp_path / "a.pkl"), "guide": str(tmp_path / "a.pkl")}
    assert request(**one, guidance=[2.0]).model.guide == one["guide"]
    for more, told in (
        (
            {"guide": "nowhere", "guidance": [2.0]},
            "file 'nowhere'; .* empty to be guided by no class",
        ),
        ({}, "and guidance is 1, which is none"),
        ({"guidance": [2.0], "lora": ["x.safetensors"]}, "and lora 'x.safetensors'; pipelines"),
        ({"checkpoint": ""}, "guide is .* and no checkpoint is given"),
    ):
        with pytest.raises(ValueError, match=told):
            request(**one | more)
    before = request(checkpoint=one["checkpoint"], guidance=[2.0]).identity("d")
    seen = request(**one, guidance=[2.0]).identity("d")
    (tmp_path / "a.pkl").write_bytes(b"y")
    assert len({before, seen, request(**one, guidance=[2.0]).identity("d")}) == 3


def test_an_autoencoder_is_given_to_a_folder_of_snapshots_as_to_a_pattern(tmp_path: Path) -> None:
    for folder in ("run", "vae"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "0000100.pt").write_bytes(b"x")
    for place in ("run", "run/*.pt"):
        of = {"checkpoints": [str(tmp_path / place)], "configuration": str(tmp_path / "vae")}
        asked = build(SnapshotRequest, of)
        file = str(tmp_path / "run" / "0000100.pt")
        assert asked.grid_of(file).model.configuration == str(tmp_path / "vae")
    with pytest.raises(ValueError, match="belongs to one file of weights"):
        asked.grid_of(str(tmp_path / "run"))
