"""Every whole number that can be asked for has an upper bound, so that a slip of the finger is told
at once, and not by a full memory."""

from __future__ import annotations

from typing import Any, get_args

import annotated_types
import pytest
from pydantic.fields import FieldInfo

from flows.requests.base import BaseRequest
from flows.requests.flat import Parameter, build, parameters
from flows.requests.grid import GridRequest
from flows.requests.lora import StyleRequest, SubjectRequest
from flows.requests.models import PointRequest, ToyRequest
from flows.requests.paper import PaperRequest
from flows.requests.race import RaceRequest, SnapshotRequest
from flows.requests.watch import Watch

REQUESTS = (
    BaseRequest, GridRequest, StyleRequest, SubjectRequest, PaperRequest, PointRequest,
    RaceRequest, SnapshotRequest, ToyRequest,
)  # fmt: skip
HUGE = 10**11


def is_whole_number(parameter: Parameter) -> bool:
    return parameter.plain is int or int in get_args(parameter.plain)


def upper(parameter: Parameter) -> int | None:
    marks = [m for m in get_args(parameter.kind)[1:] if isinstance(m, FieldInfo)]
    for bound in (b for mark in marks for b in mark.metadata):
        if isinstance(bound, annotated_types.Le):
            return int(bound.le)  # type: ignore[call-overload,no-any-return]
        if isinstance(bound, annotated_types.Lt):
            return int(bound.lt) - 1  # type: ignore[call-overload,no-any-return]
    return None


@pytest.mark.parametrize("request_type", REQUESTS)
def test_every_whole_number_has_an_upper_bound_that_is_said(request_type: Any) -> None:
    asked = [p for p in parameters(request_type) if is_whole_number(p)]
    tuples = {p.name for p in asked if p.plain is not int and tuple in map(type, get_args(p.plain))}
    unbounded = [p.name for p in asked if upper(p) is None and p.name not in tuples]
    assert [n for n in unbounded if n not in ("steps", "reconstruction_steps")] == []
    for parameter in asked:
        if (most := upper(parameter)) is not None:
            with pytest.raises(ValueError, match=rf"{parameter.name} is {most + 1}; it must be "):
                build(request_type, {parameter.name: most + 1})


@pytest.mark.parametrize(
    ("request_type", "given"),
    [
        (StyleRequest, {"rank": 100_000}), (StyleRequest, {"batch_size": 10**9}),
        (StyleRequest, {"processes": 1000}), (StyleRequest, {"steps": 10**20}),
        (StyleRequest, {"threads": 100_000}), (StyleRequest, {"picture_steps": 100_000}),
        (StyleRequest, {"seed": 10**23}), (SubjectRequest, {"class_images": HUGE}),
        (StyleRequest, {"accumulation": HUGE}), (StyleRequest, {"cycles": HUGE}),
        (PointRequest, {"train_steps": HUGE}), (PointRequest, {"seed": 2**63}),
        (PointRequest, {"threads": HUGE}), (GridRequest, {"train_steps": HUGE}),
        (GridRequest, {"batch_size": HUGE}), (GridRequest, {"workers": HUGE}),
        (BaseRequest, {"steps": HUGE}), (BaseRequest, {"judge_steps": HUGE}),
        (BaseRequest, {"seed": 2**63}), (RaceRequest, {"budget": 10**20}),
        (PaperRequest, {"n_reconstructed": HUGE}), (GridRequest, {"max_broken": 10**20}),
        (PointRequest, {"seed": 2**63 - 2, "train_seeds": 5}),
    ],
)  # fmt: skip
def test_an_absurd_number_is_refused_by_name_with_what_would_be_right(
    request_type: Any, given: dict[str, Any]
) -> None:
    name = next(iter(given))
    with pytest.raises(ValueError, match=rf"{name} is \d+; it must be (at most|below) \S+"):
        build(request_type, given)


@pytest.mark.parametrize(
    "given",
    [
        {"warmup_steps": 600, "steps": 500, "schedule": "linear"},
        {"warmup_steps": 500, "steps": 500, "schedule": "cosine"},
        {"warmup_steps": 160, "schedule": "constant_with_warmup"},
    ],
)
def test_a_warm_up_that_never_ends_is_refused_before_anything_is_opened(
    given: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=r"warmup_steps is \d+; it must be below the \d+ steps"):
        build(StyleRequest, given)
    assert build(StyleRequest, {"warmup_steps": 159, "schedule": "linear"}).spec.steps == 160


def test_the_watch_bounds_its_attempts_too() -> None:
    with pytest.raises(ValueError, match="attempts is 1000000000; it must be at most 1000"):
        Watch(attempts=10**9).check()


@pytest.mark.parametrize("request_type", [StyleRequest, BaseRequest, PointRequest])
def test_numbers_that_are_no_numbers_are_refused_too(request_type: Any) -> None:
    for name in ("guidance", "learning_rate", "etas"):
        if name in [p.name for p in parameters(request_type)]:
            value: Any = [float("inf")] if name == "etas" else float("inf")
            with pytest.raises(ValueError, match=rf"{name.removesuffix('s')}\w* is .*inf"):
                build(request_type, {name: value})


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("atention", "attention"),
        ("attentions", "attention"),
        ("feedforward", "feed-forward"),
        ("feed_forward", "feed-forward"),
        ("convolution", "convolutions"),
        ("Attention", "attention"),
    ],
)
def test_a_mistyped_group_of_layers_is_told_before_anything_is_opened(
    given: str, meant: str
) -> None:
    wanted = rf"targets has '{given}' \(did you mean {meant}\?\)"
    with pytest.raises(ValueError, match=wanted):
        build(StyleRequest, {"targets": ["attention", given]})
    build(StyleRequest, {"targets": ["to_q", "conv", "conv1", "ff.net.2", "attn2.to_q"]})


def test_the_groups_that_are_named_are_those_that_there_are() -> None:
    from ddim_core.lora.adapters import OF_TRANSFORMERS, OF_UNETS
    from ddim_core.lora.specs import GROUPS

    assert tuple(OF_UNETS) == GROUPS
    assert set(OF_TRANSFORMERS) < set(GROUPS)


@pytest.mark.parametrize("base", ["/nowhere/at", "./nope", "nope", "~/nope", "a/b/c"])
def test_a_base_that_is_nowhere_is_told_before_anything_else(base: str) -> None:
    with pytest.raises(ValueError, match=f"there is no folder '{base}'; give a Stable Diffusion"):
        build(StyleRequest, {"base": base})
    with pytest.raises(ValueError, match="data is empty"):
        build(StyleRequest, {"base": "owner/name"})


@pytest.mark.parametrize("seed", [7, 2**31 - 1, 2**31, 2**63 - 1])
def test_every_seed_that_can_be_asked_for_draws_pictures_of_their_own(seed: int) -> None:
    from ddim_core.lora.scoring.specs import PromptSet
    from ddim_core.lora.specs import PictureSpec

    asked = PromptSet(role="trained", prompts=("a", "b"), seed=seed)
    for keys in (asked.seeds, PictureSpec(seed=seed).seeds(4)):
        assert len(set(keys)) == 4
        assert all(0 <= key < 2**63 for key in keys)
    if seed < 2**31:
        assert asked.seeds == [(seed << 32) + i for i in range(4)]  # as they have always been
    assert PictureSpec(seed=7).seeds(3) == [7, 8, 9]
