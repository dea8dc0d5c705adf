"""The prompts' rows are what moves with the prompt, and a network is asked of them alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput
from torch import Tensor

from ddim_core.pipelines.guidance.halves import Halves, Unguided, found_halves, without_guidance


def told(prompt: float, n: int, order: str = "halves") -> dict[str, Any]:
    """What a network is given for n images of a prompt, the empty prompt's rows first."""
    rows = [0.0] * n + [prompt] * n if order == "halves" else [0.0, prompt] * n
    return {
        "x": torch.zeros(2 * n, 3),
        "t": torch.tensor(5),
        "more": {"text": torch.tensor(rows)},
        "turns": (torch.ones(2, 4), torch.zeros(2, 4)),  # as many as there are rows of one image
        "captions": [torch.tensor([row]) for row in rows],
    }


def found(**more: Any) -> Halves:
    return found_halves(told(1.0, 1, **more), told(2.0, 1, **more), told(1.0, 2, **more))


def test_the_rows_that_move_with_the_prompt_are_its_own() -> None:
    halves = found()
    assert halves == Halves(("x", "more.text", "captions"), True)
    of_two = {name: halves.prompts_of(part, name) for name, part in told(3.0, 1).items()}
    assert of_two["more"]["text"].tolist() == [3.0]
    assert [caption.item() for caption in of_two["captions"]] == [3.0]
    assert of_two["x"].shape == (1, 3)
    assert of_two["turns"][0].shape == (2, 4)
    assert of_two["t"] == 5


def test_a_call_that_asks_for_the_prompt_first_is_asked_once() -> None:
    packed = [{"x": torch.zeros(1, 3), "text": torch.full((7 * n, 2), p)}
              for p, n in ((1.0, 1), (2.0, 1), (1.0, 2))]  # fmt: skip
    assert found_halves(*packed) == Halves((), False)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([told(0.0, 1, "mixed"), told(1.0, 1, "mixed"), told(0.0, 2, "mixed")], None),
        ([told(1.0, 1, "mixed"), told(2.0, 1, "mixed"), told(1.0, 2, "mixed")], "more.text in an"),
        ([{"x": torch.zeros(n, 3)} for n in (1, 1, 2)], "of 1 rows an image, 0 for the prompt"),
        ([{"x": torch.zeros(n, 3) + p} for p, n in ((0, 2), (1, 2), (0, 4))], "2 rows .* 2 for"),
        ([{"x": torch.arange(3.0) * p} for p in (1, 2, 1)], "of 3 rows an image"),
        ([{"x": torch.zeros(2)}, {"x": torch.zeros(2), "y": []}, {}], "other arguments for other"),
    ],
)
def test_what_is_not_two_halves_is_refused(given: list[Any], words: str | None) -> None:
    if words is None:  # where all rows are alike no order is wrong
        found_halves(*given)
        return
    with pytest.raises(ValueError, match=words):
        found_halves(*given)


def network(x: Any, text: Any, kind: str) -> Any:
    """Says of each row ten times its text."""
    asked.append(len(x))
    if kind == "list":
        return ([row * 10 for row in text],)
    return (text * 10,) if kind == "tuple" else UNet2DConditionOutput(sample=text * 10)


asked: list[int] = []


@pytest.mark.parametrize("kind", ["tuple", "output", "list"])
def test_what_is_said_of_the_prompts_stands_for_both_halves(kind: str) -> None:
    asked.clear()
    step = Unguided("It", 2)
    alone = without_guidance(Halves(("x", "text"), False), lambda: step)("unet", network)
    text = list(torch.arange(4.0)) if kind == "list" else torch.arange(4.0)
    said = alone(torch.zeros(4), text=text, kind=kind)[0]
    assert [float(row) for row in said] == [0.0, 10.0, 0.0, 10.0]
    assert asked == [2]
    with pytest.raises(ValueError, match="It asks its network of 4 rows for 2 images in call 2"):
        alone(torch.zeros(4), text=text, kind=kind)


def test_the_first_answer_stands_for_the_second_and_for_no_third() -> None:
    asked.clear()
    steps: list[Unguided | None] = [Unguided("It", 2)] * 3 + [None]
    alone = without_guidance(Halves((), False), lambda: steps[0])("unet", network)

    def ask(text: float) -> Tensor:
        said: Tensor = alone(torch.zeros(2), torch.full((2,), text), "tuple")[0]
        return said

    first = ask(1.0)
    first += 7.0  # in place, as some calls do
    assert ask(0.0).tolist() == [10.0, 10.0]
    assert asked == [2]
    with pytest.raises(ValueError, match="in call 3 of a step, so that its guidance cannot be"):
        ask(0.0)
    steps[0] = None
    assert ask(0.0).tolist() == [0.0, 0.0]
