"""Scores of each class: planted worlds against distances by hand, shares against their tests."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import stdtr
from scipy.stats import chi2

from ddim_core.reports.class_sentences import MOST_SHOWN, classes_said, shown_classes
from ddim_core.scores.distances.frechet import frechet_distance
from ddim_core.scores.per_class import PerClass, least_images, per_class
from ddim_core.scores.set_score import FeatureSet, score_classes
from ddim_core.statistics.jackknife import half_width
from ddim_core.statistics.moments import FeatureMoments

D, CLASSES = 8, 5
NAMES = ["ant", "bee", "cat", "dog", "eel"]


def world(
    seed: int, n: int = 120, m: int = 150, worse: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features and labels of generated images, asked in turn, and of real ones; the generated ones
    of `cat` miss their class by so much."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(CLASSES, D)) * 5.0
    asked, real = np.arange(n * CLASSES) % CLASSES, np.repeat(np.arange(CLASSES), m)
    generated = centres[asked] + rng.normal(size=(len(asked), D))
    generated[asked == 2, 0] += worse
    features = centres[real] + rng.normal(size=(len(real), D))
    return generated.astype("f4"), asked, features.astype("f4"), real


def test_each_class_has_the_distance_of_its_own_images_and_the_planted_one_is_worst() -> None:
    generated, asked, real, labels = world(1, worse=1.0)
    found = per_class(NAMES, generated, asked, real, labels, found=asked, asked=True)
    for i, one in enumerate(found.classes):
        by_hand = frechet_distance(
            FeatureMoments.from_features(generated[asked == i]),
            FeatureMoments.from_features(real[labels == i]),
        )
        assert one.fid is not None
        assert one.fid.fid == pytest.approx(by_hand, rel=1e-9)
        assert (one.n_images, one.n_reference, one.n_found) == (120, 150, 120)
    worst = found.worst()
    assert worst is not None
    assert (worst.scored.name, worst.is_worse) == ("cat", True)
    gap_se = (worst.high - worst.gap) / half_width(1.0, 20)
    alone = float(2.0 * stdtr(19, -worst.gap / gap_se))
    assert worst.p_adjusted == pytest.approx(CLASSES * alone, rel=1e-6)  # the smallest of Holm's
    assert worst.low < 1.0 < worst.high  # the shift's square, and others' distance 0
    said = classes_said(found)
    assert said[0].startswith("`cat` is the worst of 5 classes: FID 1.")
    assert said[1].startswith("the classifier finds the classes in the shares that were asked for")
    assert PerClass.from_json(found.to_json()) == found
    for foreign in (None, "x", "[]", '{"classes": [1]}', '{"classes": [{"fid": null}]}'):
        assert PerClass.from_json(foreign) is None


def test_with_bias_taken_off_equal_classes_of_unequal_sizes_are_told_apart_in_few_worlds() -> None:
    alarms, left, plugged_in = 0, [], []
    for seed in range(50):
        generated, asked, real, labels = world(seed, n=80, m=120)
        few = (asked != 1) | (np.arange(len(asked)) < 200)  # half of `bee`, and of its real ones
        fewer = (labels != 1) | (np.arange(len(labels)) % 2 == 0)
        found = per_class(NAMES, generated[few], asked[few], real[fewer], labels[fewer], None, True)
        assert len([one for one in found.classes if one.fid]) == CLASSES
        assert found.shares_p_value() is None
        worst = found.worst()
        assert worst is not None
        alarms += worst.is_worse
        known = [one.fid for one in found.classes if one.fid]
        left += [fid.fid - fid.bias for fid in known]
        plugged_in += [fid.fid for fid in known]
    # Binomial, 50 at 0.05: more than 7 with probability 0.004.
    assert alarms <= 7
    # The truth is 0; 250 estimates, each with a spread of a sixth of its bias.
    assert abs(np.mean(left)) < 0.03 * np.mean(plugged_in)


def test_too_few_images_give_no_number_and_the_reason() -> None:
    least = least_images(D)
    assert (least, least_images(64), least_images(2048)) == (40, 70, 2197)
    generated, asked, real, labels = world(2, n=least - 1)
    found = per_class(NAMES, generated, asked, real, labels, None, asked=True)
    assert [one.fid for one in found.classes] == [None] * CLASSES
    assert found.worst() is None
    assert classes_said(found) == [
        "FID is null of every class: 39 generated and 150 real images are too few for 8 features; "
        "it takes 40 of each."
    ]


def test_shares_are_tested_against_what_was_asked_by_chi_square() -> None:
    generated, asked, real, labels = world(3)
    judged = asked.copy()
    judged[np.flatnonzero(asked == 4)[:60]] = 0  # half of the eels look like ants,
    judged[np.flatnonzero(asked == 3)[:1]] = 0  # and a dog
    found = per_class(NAMES, generated, asked, real, labels, judged, asked=True)
    statistic = (61**2 + 60**2 + 1) / 120
    assert found.shares_p_value() == pytest.approx(chi2.sf(statistic, CLASSES - 1))
    share = found.share(found.classes[0])
    assert share is not None
    assert share[0] == 181 / 600
    assert share[1] < share[0] < share[2]
    assert "most apart is `ant`, 30.2 % [26.6, 34.0] instead of 20.0 %" in classes_said(found)[-1]


def test_two_labelled_sets_are_matched_by_the_names_of_their_classes() -> None:
    generated, asked, real, labels = world(4, worse=1.0)
    ours = FeatureSet("ours", [generated], classes=[NAMES[i] for i in asked])
    theirs = FeatureSet("theirs", [real], classes=[("fox", *NAMES[1:])[i] for i in labels])
    found = score_classes(ours, theirs)
    assert [one.name for one in found.classes] == ["ant", "bee", "cat", "dog", "eel", "fox"]
    assert [one.n_reference for one in found.classes] == [0, 150, 150, 150, 150, 150]
    worst = found.worst()
    assert worst is not None
    assert worst.scored.name == "cat"
    p_value = found.shares_p_value()
    assert p_value is not None
    assert p_value < 1e-10
    by_request = FeatureSet("cell", [generated], classes=ours.classes, asked=True)
    again = score_classes(by_request, theirs)
    assert [one.fid for one in again.classes] == [one.fid for one in found.classes]
    assert again.shares_p_value() is None  # nobody found them to be what was asked
    with pytest.raises(ValueError, match="a class for each image, which ours does not have"):
        score_classes(FeatureSet("ours", [generated]), theirs)
    with pytest.raises(ValueError, match="labels go from 0 to 4; there are 4 classes"):
        per_class(NAMES[:4], generated, asked, real, labels, None, asked=True)


def test_of_many_classes_those_that_stand_out_are_shown() -> None:
    rng = np.random.default_rng(5)
    labels = np.arange(30 * 50) % 30
    judged = np.where(labels == 7, 8, labels)
    features = rng.normal(size=(len(labels), D)).astype("f4")
    features[labels == 3] += 2.0
    real = rng.normal(size=(len(labels), D)).astype("f4")
    names = [f"class {i}" for i in range(30)]
    found = per_class(names, features, labels, real, labels, judged, asked=True)
    shown = [one.name for one in shown_classes(found)]
    assert len(shown) == MOST_SHOWN
    assert "class 3" in shown
    assert shown == sorted(shown, key=names.index)
