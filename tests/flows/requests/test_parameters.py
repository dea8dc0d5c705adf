"""One declaration of a parameter: what the form, the command and the check make of it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
from prefect.utilities.callables import parameter_schema
from pydantic import Field
from typer.main import get_command
from typer.testing import CliRunner

from flows.cli.app import app
from flows.cli.commands.options import listed
from flows.requests.flat import Asked, Elsewhere, Without, build, command_line, flat, parameters
from flows.requests.grid import GridRequest
from flows.requests.lora import STYLE_RECIPE, StyleRequest, SubjectRequest
from flows.requests.race import RACED, SnapshotRequest
from flows.requests.samplers.choice import SamplerChoice

Seed = Annotated[int, Field(ge=0, description="Keys all that is random.")]


@dataclass(frozen=True)
class Cells:
    """The cells; and more words."""

    steps: Annotated[tuple[int, ...], Field(min_length=1, description="Numbers of steps S.")] = (5,)
    eta: Annotated[float, Field(ge=0, le=1, description="Noise fraction.")] = 0.0
    seed: Seed = 0


@dataclass(frozen=True)
class Training:
    """The training."""

    rate: Annotated[float, Field(gt=0, description="Learning rate.")] = 0.5
    clip: Annotated[bool, Field(description="Clip it.")] = False
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class Request:
    """The whole."""

    cells: Cells = Cells(steps=(10, 20))
    training: Annotated[
        Asked[Training], Without(("clip",)), Elsewhere("on mars", Training(rate=2.0))
    ]
    kind: Annotated[Literal["near", "far"], Field(description="Which. Or the other.")] = "near"


@flat
def flow(request: Request) -> Request:
    """Does it.

    Raises:
        ValueError: If it cannot.
    """
    return request


def test_the_signature_and_the_form_are_flat_with_bounds_defaults_and_descriptions() -> None:
    form = parameter_schema(flow).model_dump()["properties"]
    assert list(form) == ["steps", "eta", "seed", "rate", "kind"]
    assert form["steps"]["default"] == [10, 20]  # as the whole has it, not its group alone
    assert (form["eta"]["minimum"], form["eta"]["maximum"]) == (0, 1)
    assert form["kind"]["enum"] == ["near", "far"]
    assert form["seed"]["description"] == "Keys all that is random."


def test_what_is_not_given_has_its_default_and_what_is_asked_takes_the_place_of_the_usual() -> None:
    request = flow(steps=["7"], eta=0)
    assert request.cells == Cells(steps=(7,), eta=0.0)
    assert request.training.on(Training(rate=3.0)) == Training(rate=3.0)
    asked = flow(rate=1, seed=4)
    assert asked.training.on(Training(rate=3.0, clip=True)) == Training(1.0, True, 4)
    assert asked.cells.seed == 4  # one parameter for both groups


def test_the_command_that_asks_for_a_record_asks_for_it_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command_line("grid", build(GridRequest, {})) == "ddim grid"
    emoji = {"dataset": "emoji", "etas": (0.0,)}  # which settle the rest, but where it is given
    assert command_line("grid", build(GridRequest, emoji)) == "ddim grid --dataset emoji --etas 0"
    smaller = command_line("grid", build(GridRequest, {**emoji, "resolution": 8}))
    assert smaller == "ddim grid --dataset emoji --resolution 8 --etas 0"
    secret = "sesame'4711"
    monkeypatch.setenv("SOME_TOKEN", secret)
    asked = {
        "checkpoint": "data/base", "feature_weights": f"it's {secret}", "steps": (5, 10),
        "background": "rgb(1, 2, 3)",
        "samplers": ("ddim", "euler?timesteps=[900,400,100,20,3]"), "etas": (0.0, 0.25),
        "margin": 0.123456789, "clip": True, "skin_tones": False, "workers": 3, "n_images": 77,
        "twins": ("two, by name", "seed*"),
    }  # fmt: skip
    record = build(GridRequest, asked)
    said = command_line("grid", record, record.machine.undeciding)
    assert "4711" not in said
    assert "--workers" not in said
    given = {}
    door = get_command(app).commands["grid"]  # type: ignore[attr-defined]
    context = door.make_context("grid", shlex.split(said)[2:])
    for p in parameters(GridRequest):
        value = context.params["checkpoints" if p.name == "checkpoint" else p.name]
        given[p.name] = value
    assert given["checkpoint"] == ["data/base"]
    assert given["feature_weights"] == "it's ***"
    assert (given["steps"], given["background"]) == ("5,10", "rgb(1, 2, 3)")
    assert listed(given["samplers"], str) == list(asked["samplers"])
    assert listed(given["twins"], str) == ["two, by name", "seed*"]
    assert listed(given["etas"], float) == [0.0, 0.25]
    assert given["margin"] == 0.123456789
    assert (given["clip"], given["skin_tones"], given["n_images"]) == (True, False, 77)
    assert given["gate"] is None


def test_the_command_of_snapshots_says_the_shards_that_are_not_its_usual_ones() -> None:
    usual = {True: RACED.shard_size, False: SamplerChoice.shard_size}
    for race, mine in usual.items():
        for size in usual.values():
            asked = {"checkpoints": ("data/base",), "until_decided": race, "shard_size": size}
            said = build(SnapshotRequest, asked).command
            assert ("--until-decided" in said) == race
            assert (f"--shard-size {size}" in said) == (size != mine)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"steps": []}, "steps is empty; give at least one"),
        ({"steps": [1.5]}, "steps is 1.5; it must be a whole number"),
        ({"eta": 2}, "eta is 2; it must be at most 1"),
        ({"eta": float("nan")}, "eta is nan; it must be"),
        ({"rate": 0}, "rate is 0; it must be above 0"),
        ({"kind": "neer"}, r"kind is 'neer'; it must be one of near, far \(did you mean near\?\)"),
        ({"etta": 1}, r"there is no parameter etta \(did you mean eta\?\)"),
        ({"seed": "x"}, "seed is 'x'; it must be a whole number"),
    ],
)
def test_what_cannot_be_is_refused_with_the_value_and_what_would_be_right(
    given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        build(Request, given)


def test_a_field_without_a_description_or_of_two_meanings_is_no_parameter() -> None:
    @dataclass(frozen=True)
    class Bare:
        steps: int = 1

    @dataclass(frozen=True)
    class Twice:
        """Twice."""

        cells: Cells = Cells()
        steps: Annotated[int, Field(description="Something else.")] = 1

    with pytest.raises(TypeError):
        parameters(Bare)
    with pytest.raises(TypeError):
        parameters(Twice)


def test_a_lora_has_its_parameters_from_its_spec_and_the_command_says_both_defaults() -> None:
    from flows.cli.commands.lora import lora

    names = [parameter.name for parameter in parameters(StyleRequest)]
    assert {"rank", "learning_rate", "data", "gradient_checkpointing"} < set(names)
    assert "prior_weight" not in names
    assert "prior_weight" in [parameter.name for parameter in parameters(SubjectRequest)]
    assert build(StyleRequest, {"rank": 3}).lora.on(STYLE_RECIPE).rank == 3
    told = CliRunner().invoke(lora, ["style", "--help"], env={"COLUMNS": "200"}).output
    assert "[4; embedded base 16]" in told
    assert "[constant; embedded base cosine]" in told


def test_the_page_of_all_parameters_is_what_the_declarations_say() -> None:
    from flows.cli.document import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m flows.cli.document"
