"""Which LoRA to ship: planted candidates, by their pictures' own numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ddim_core.lora.scoring.likeness import ThumbnailFeatures
from ddim_core.lora.scoring.ranking import Candidate, rank, verdict
from ddim_core.lora.scoring.scorecard import (
    broken,
    groups_of,
    mean_measure,
    share_measure,
    spread_within,
    usable,
)
from ddim_core.lora.scoring.specs import PromptSet
from ddim_core.reports.lora_answer import answer
from ddim_core.text2image.drawings import Style
from ddim_core.text2image.scenes import BACKGROUNDS, SUBJECTS, Scene, draw_all

PROMPTS = tuple(f"prompt {i}" for i in range(20))
ASKED = PromptSet("given", PROMPTS, per_prompt=2)
GROUPS = groups_of(ASKED.texts)
N = len(ASKED.texts)


def candidate(place: int, gain: float, copies: float = 0.05, off: float = 0.05) -> Candidate:
    """Pictures that share the noise of all candidates, of which a share copies or is off prompt."""
    shared, own = np.random.default_rng(0), np.random.default_rng(100 + place)
    noise = shared.normal(0.0, 0.1, N) + own.normal(0.0, 0.02, N)
    faults = {"copies": own.random(N) < copies, "off_prompt": own.random(N) < off}
    gained = gain + noise

    def measures(x: np.ndarray, flags: dict[str, np.ndarray]) -> dict[str, object]:
        return {
            "likeness_gain": mean_measure(x, GROUPS),
            **{name: share_measure(holds, GROUPS) for name, holds in flags.items()},
            "usable_gain": mean_measure(usable(x, *flags.values()), GROUPS),
        }

    clean = {name: np.arange(N) % 20 == 0 for name in faults}
    told = measures(gained, faults), measures(np.zeros(N), clean)
    return Candidate(f"epoch-{place}", place, place, "epoch", 1.0, "own", *told)  # type: ignore[arg-type]


def test_the_planted_faults_are_named_and_the_best_epoch_is_shipped() -> None:
    epochs = [
        candidate(0, 0.05), candidate(1, 0.15), candidate(2, 0.3, off=0.9), candidate(3, 0.3),
        candidate(4, 0.31, copies=0.9), candidate(5, 0.33, copies=1.0),
    ]  # fmt: skip
    ranking = rank(epochs)
    assert ranking.first.candidate.name == "epoch-3"
    assert ranking.first.is_proven
    assert not ranking.first.faults
    assert ranking.overfit_from == "epoch-4"
    found = {one.candidate.name: set(one.faults) for one in ranking.ranked if one.faults}
    assert found == {"epoch-2": {"off_prompt"}, "epoch-4": {"copies"}, "epoch-5": {"copies"}}
    worse = {one.candidate.name for one in ranking.ranked if not one.is_tied}
    assert {"epoch-0", "epoch-2", "epoch-4", "epoch-5"} <= worse
    said = answer(ranking, ASKED, "style")
    assert said[0].startswith("Ship epoch-3 at 1: likeness to the style +0.29")
    assert "; overfit from epoch-4 on (" in said[0]
    assert any(text.startswith("It copies its training images: epoch-4 at 1, ") for text in said)


def test_epochs_that_gain_nothing_are_not_shipped() -> None:
    ranking = rank([candidate(0, 0.0), candidate(1, 0.0)])
    assert answer(ranking, ASKED, "subject")[0].startswith("Ship none: ")
    assert ranking.overfit_from is None


def test_false_proofs_are_as_rare_as_promised() -> None:
    """Of equal candidates any is proven worse than the first in at most 5 % of trials: here, by
    Bonferroni over pairs that depend on each other, in far fewer."""
    wrong = 0
    for trial in range(100):
        stream = np.random.default_rng(trial)
        told = candidate(0, 0.1)
        equal = [
            replace(told, place=i, measures={
                "usable_gain": (x := mean_measure(stream.normal(0.1, 0.1, N), GROUPS)),
                "likeness_gain": x,
            })
            for i in range(6)
        ]  # fmt: skip
        wrong += any(not one.is_tied for one in rank(equal).ranked)
    assert wrong <= 5


def test_gains_and_likenesses_hold_together() -> None:
    """One true candidate of gain and likeness 0, drawn anew: with 5 % for each of both families
    either misses in 10 % of trials. Of 1000 trials 78 is four standard errors above 50."""
    told, stream, wrong = candidate(0, 0.0), np.random.default_rng(0), 0
    for _ in range(1000):
        measures = {
            name: mean_measure(stream.normal(size=20), np.arange(20))
            for name in ("usable_gain", "likeness_gain")
        }
        first = rank([replace(told, measures=measures, base={})]).first
        wrong += any(one.low > 0.0 or one.high < 0.0 for one in (first.gain, first.likeness))
    assert wrong <= 78


def test_a_fault_needs_enough_pictures() -> None:
    """All pictures of one candidate are broken and none of the other's: the jackknife sees no
    spread in either, whatever the number of pictures."""
    found = []
    for n in (2, 40):
        groups = np.arange(n) % 24
        gain = {name: mean_measure(np.ones(n), groups) for name in ("usable_gain", "likeness_gain")}
        none, all_ = (share_measure(np.full(n, x), groups) for x in (False, True))
        sound = Candidate("a", 0, 0, "", 1.0, "own", {**gain, "broken": none}, {"broken": none})
        ill = replace(sound, place=1, measures={**gain, "broken": all_})
        found.append([set(one.faults) for one in rank([sound, ill]).ranked])
    assert found == [[set(), set()], [set(), {"broken"}]]


def test_few_copies_are_no_fault_however_many_pictures_prove_them() -> None:
    groups = np.arange(4000) % 24
    gain = {name: mean_measure(np.ones(4000), groups) for name in ("usable_gain", "likeness_gain")}
    found = []
    for share in (0.04, 0.06):  # of unseen real images 5 % lie as near
        none, some = (share_measure(np.arange(4000) < x * 4000, groups) for x in (0.0, share))
        told = Candidate("a", 0, 0, "", 1.0, "own", {**gain, "copies": some}, {"copies": none})
        found.append(set(rank([told]).first.faults))
    assert found == [set(), {"copies"}]


def test_an_epoch_that_lost_likeness_is_worse_and_not_overfit() -> None:
    ranking = rank([candidate(0, 0.3), candidate(1, 0.1)])
    assert not ranking.ranked[1].is_tied
    assert not ranking.ranked[1].overfit
    assert ranking.overfit_from is None


def test_only_files_of_one_series_are_trained_for_longer() -> None:
    first, worse = candidate(0, 0.3), candidate(1, 0.32, copies=1.0)
    assert rank([first, worse]).overfit_from == "epoch-1"
    other = rank([first, replace(worse, series="another LoRA")])
    assert other.overfit_from is None
    assert not any(one.overfit for one in other.ranked)


def test_the_verdict_is_of_the_best_on_each_side() -> None:
    ours, theirs = candidate(2, 0.3), candidate(0, 0.1)
    assert verdict(rank([theirs, candidate(1, 0.05), ours]), 2)[0] == "better"
    call, difference = verdict(rank([replace(ours, place=0), replace(theirs, place=1)]), 1)
    assert call == "worse"
    assert difference.low < difference.value == pytest.approx(-0.2, abs=0.02)
    assert verdict(rank([theirs, replace(theirs, place=1)]), 1)[0] == "tied"


def test_what_is_lost_counts_in_faulty_pictures_too() -> None:
    gained, fault = np.array([0.2, 0.2, -0.1, -0.1]), np.array([False, True, False, True])
    np.testing.assert_array_equal(usable(gained, fault, fault), [0.2, 0.0, -0.1, -0.1])


def test_variety_is_told_from_decay() -> None:
    """Both raise the diversity of a prompt's pictures; only what dissolves leaves the manifold of
    real images and the base's. A collapse does neither."""
    subjects, colours = list(SUBJECTS)[:24], list(BACKGROUNDS)
    texts = [subject for subject in subjects for _ in range(2)]
    stream = np.random.default_rng(0)

    def pictures(style: Style, apart: int, size: float = 1.0) -> np.ndarray:
        return draw_all(
            [
                Scene(s, colours[(i + apart * j) % 8], style, mirrored=bool(apart and j), size=size)
                for i, s in enumerate(subjects)
                for j in range(2)
            ],
            16,
        )

    real = draw_all([Scene(s, c, "openmoji") for s in subjects for c in colours], 16)
    before = pictures("twemoji", 1)
    alike = pictures("openmoji", 0, 0.9)  # two of a prompt differ in nothing
    varied = pictures("openmoji", 3, 0.9)
    noise = stream.integers(0, 256, varied.shape)
    dissolved = (0.2 * alike + 0.8 * noise).astype(np.uint8)
    features = ThumbnailFeatures()

    def outside(x: np.ndarray) -> float:
        return float(broken(features(x), features(before), [features(real)] * 2).mean())

    spread = [spread_within(features(x), texts).mean() for x in (alike, varied, dissolved)]
    assert spread[0] < min(spread[1:])
    assert outside(before) < 0.3  # 0.25: few, and none vouches for itself
    assert outside(alike) < 0.1
    assert outside(varied) < 0.1
    assert outside(dissolved) > 0.9
