"""Scores of each class by itself, and the shares of the classes, of a class-conditional model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.printable import printable
from ddim_core.scores.cell_score import LEAST_GROUPS, LEAST_GROUPS_OF_MANY, groups_of
from ddim_core.scores.distances.frechet import Reference
from ddim_core.scores.distances.frechet_score import MANY_FEATURES, frechet_score
from ddim_core.statistics.holm import holm
from ddim_core.statistics.jackknife import half_width
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.statistics.rows import FeatureRows

LEVEL = 0.05
LEAST_EXPECTED = 5.0  # images of a class, for a chi-square test of all
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class ClassFid:
    """The Frechet distance of one class.

    Attributes:
        fid: Plug-in distance of the class's generated images to its real ones.
        se, groups: Standard error by the jackknife over so many groups of generated images.
        bias: How much of fid is the two sets' finite size: what the distance freed of one side's
            bias (`frechet_infinity`), and freed of the other's, fall short of it, added. Of equal
            Gaussians (d = 64) it is 99 % of all there is at 10 images a feature on both sides,
            96 % at 2, 91 % at 1.1 (benchmarks/per_class.py).
        se_reference: Standard error by the jackknife over groups of real images, which counts
            where classes are compared: each has real images of its own.
    """

    fid: float
    se: float
    groups: int
    bias: float
    se_reference: float

    @property
    def low(self) -> float:
        """Of the 95 % interval of fid; no distance is below 0."""
        return max(self.fid - half_width(self.se, self.groups), 0.0)

    @property
    def high(self) -> float:
        return self.fid + half_width(self.se, self.groups)


@dataclass(frozen=True)
class ClassScore:
    """One class.

    Attributes:
        name: Of the class.
        n_images: Generated images that were asked to be of it, or that their labels say are.
        n_reference: Real images of it.
        n_found: Generated images that are found to be of it, by a judge or by their labels; None
            where they are asked for and nobody judges.
        fid: None where there are too few images for the features.
    """

    name: str
    n_images: int
    n_reference: int
    n_found: int | None
    fid: ClassFid | None


@dataclass(frozen=True)
class WorstClass:
    """The class with the largest distance, compared with the mean of the others.

    Attributes:
        scored: The class.
        gap, low, high: Its fid - bias less the others' mean, with its own 95 % interval.
        p_adjusted: Two-sided, corrected (Holm) for each class being compared so.
        n_classes: Classes that were compared.
    """

    scored: ClassScore
    gap: float
    low: float
    high: float
    p_adjusted: float
    n_classes: int

    @property
    def is_worse(self) -> bool:
        return self.p_adjusted < LEVEL and self.gap > 0.0


@dataclass(frozen=True)
class PerClass:
    """All classes.

    Attributes:
        n_features: d.
        asked: Whether the generated images were asked for by class; else their labels are given.
        classes: In the order of their labels.
    """

    n_features: int
    asked: bool
    classes: tuple[ClassScore, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | None) -> PerClass | None:
        """Reads what `to_json` wrote; None of nothing, and of what another program wrote there."""
        try:
            told = json.loads(text or "")
            classes = tuple(
                ClassScore(**(one | {"fid": ClassFid(**one["fid"]) if one["fid"] else None}))
                for one in told["classes"]
            )
            return cls(told["n_features"], told["asked"], classes)
        except (ValueError, TypeError, KeyError, RecursionError):
            return None

    def share(self, scored: ClassScore) -> tuple[float, float, float] | None:
        """A class's share of the generated images with its 95 % Wilson interval."""
        from scipy.stats import binomtest

        total = sum(one.n_found or 0 for one in self.classes)
        if scored.n_found is None or not total:
            return None
        interval = binomtest(scored.n_found, total).proportion_ci(0.95, method="wilson")
        return scored.n_found / total, float(interval.low), float(interval.high)

    def wanted_share(self, scored: ClassScore) -> float:
        """A class's share of what was asked for, or else of the reference."""
        if not self.asked:
            return self.reference_share(scored)
        return scored.n_images / max(sum(one.n_images for one in self.classes), 1)

    def reference_share(self, scored: ClassScore) -> float:
        """A class's share of the reference."""
        return scored.n_reference / max(sum(one.n_reference for one in self.classes), 1)

    def shares_p_value(self) -> float | None:
        """Chi-square test of all shares at once.

        Against the asked shares the counts are tested as if each image fell into a class by
        chance; as the same number was asked of each, an honest model passes more often than that.
        Against the reference it is the test of two samples. None where a class is expected fewer
        than 5 times, or nothing was found.
        """
        from scipy.stats import chi2_contingency, chisquare

        present = [c for c in self.classes if c.n_images or c.n_found or c.n_reference]
        if len(present) < 2 or any(c.n_found is None for c in present):
            return None
        found = np.array([c.n_found or 0 for c in present], dtype=np.float64)
        other = np.array([c.n_images if self.asked else c.n_reference for c in present])
        if self.asked:
            return float(chisquare(found, other).pvalue) if other.min() >= LEAST_EXPECTED else None
        both = np.array([found, other])
        if not both.sum(axis=1).all():
            return None
        expected = np.outer(both.sum(axis=1), both.sum(axis=0)) / both.sum()
        return float(chi2_contingency(both).pvalue) if expected.min() >= LEAST_EXPECTED else None

    def why_not(self, scored: ClassScore) -> str:
        """Why a class has no distance; empty if it has one."""
        if scored.fid is not None:
            return ""
        return (
            f"{scored.n_images} generated and {scored.n_reference} real images are too few for "
            f"{self.n_features} features; it takes {least_images(self.n_features)} of each"
        )

    def worst(self) -> WorstClass | None:
        """Compares each class that has a distance with the mean of the others; None of fewer than
        2. What is compared is fid - bias, for classes may have unequal numbers of images. Each
        class has generated and real images of its own, so that all their errors add up."""
        from scipy.special import stdtr

        known = [(one, one.fid) for one in self.classes if one.fid is not None]
        if len(known) < 2:
            return None
        values = np.array([fid.fid - fid.bias for _, fid in known])
        squares = np.array([fid.se**2 + fid.se_reference**2 for _, fid in known])
        rest = len(known) - 1
        gaps = values - (values.sum() - values) / rest
        errors = np.sqrt(squares + (squares.sum() - squares) / rest**2)
        groups = min(fid.groups for _, fid in known)
        p_values = [
            float(2.0 * stdtr(groups - 1, -abs(gap) / se)) if se else float(gap == 0.0)
            for gap, se in zip(gaps, errors, strict=True)
        ]
        worst = int(np.argmax(values))
        half = half_width(float(errors[worst]), groups)
        gap = float(gaps[worst])
        adjusted = holm(p_values)[worst]
        return WorstClass(known[worst][0], gap, gap - half, gap + half, adjusted, len(known))


def per_class(
    names: Sequence[str],
    generated: NDArray[np.float32],
    labels: Labels,
    reference: NDArray[np.float32],
    reference_labels: Labels,
    found: Labels | None,
    asked: bool,
) -> PerClass:
    """Scores each class's generated images against its real ones.

    Args:
        names: Of the classes, in the order of their labels 0, 1, ...
        generated, reference: Features [n, d] and [m, d], n and m at least 1.
        labels, reference_labels: The class of each, int64 [n] and [m].
        found: What the generated images are found to be, int64 [n]: by a judge where their labels
            are what was asked for, else these again; None where nobody judges.
        asked: Whether the labels of the generated images are what was asked for.

    Raises:
        ValueError: If a label is no class, the columns differ, or a feature is not finite.
    """
    for label in (labels, reference_labels, *([] if found is None else [found])):
        if label.size and not 0 <= label.min() <= label.max() < len(names):
            raise ValueError(f"labels go from {label.min()} to {label.max()}; there are "
                             f"{len(names)} classes")  # fmt: skip
    classes = []
    for i, name in enumerate(names):
        ours, real = generated[labels == i], reference[reference_labels == i]
        n_found = None if found is None else int((found == i).sum())
        fid = _class_fid(ours, real)
        classes.append(ClassScore(printable(name), len(ours), len(real), n_found, fid))
    return PerClass(generated.shape[1], asked, tuple(classes))


def least_images(n_features: int) -> int:
    """How many generated, and real, images of a class its distance takes: so many that without any
    group of the jackknife n - 1 > d. With fewer, some directions of feature space show no variance
    at all, and what they miss is all in the distance."""
    groups = LEAST_GROUPS if n_features < MANY_FEATURES else LEAST_GROUPS_OF_MANY
    fewest = max(n_features + 2, 2 * groups)
    return next(n for n in count(fewest) if n - -(-n // groups) - 1 > n_features)


def class_accuracy(
    logits: NDArray[np.float32], indices: Sequence[int]
) -> tuple[float, float, float]:
    """The share of images of the class asked of them, with its 95 % Wilson interval.

    Args:
        logits: A classifier's, float [n, n_classes].
        indices: The image indices k, which tell the classes asked for.
    """
    from scipy.stats import binomtest

    from ddim_core.diffusion.labels import asked_labels  # imports torch

    asked = asked_labels(indices, logits.shape[1]).numpy()
    right = int((logits.argmax(axis=1) == asked).sum())
    interval = binomtest(right, len(asked)).proportion_ci(0.95, method="wilson")
    return right / len(asked), float(interval.low), float(interval.high)


def _class_fid(generated: NDArray[np.float32], real: NDArray[np.float32]) -> ClassFid | None:
    least = least_images(generated.shape[1])
    if len(generated) < least or len(real) < least:
        return None
    one, other = _freed(generated, real), _freed(real, generated)
    bias = 2.0 * one.fid - one.fid_inf - other.fid_inf
    return ClassFid(one.fid, one.se, one.groups, bias, other.se)


@dataclass(frozen=True)
class _Freed:
    """A distance, the same freed of the judged side's bias, and its standard error over that."""

    fid: float
    fid_inf: float
    se: float
    groups: int


def _freed(judged: NDArray[np.float32], against: NDArray[np.float32]) -> _Freed:
    rows = FeatureRows.of_array(judged)
    reference = Reference.of(FeatureMoments.from_features(against))
    score = frechet_score(rows, groups_of(rows), reference)
    assert score.fid_inf is not None
    assert score.fid_high is not None
    groups = len(score.sizes)
    se = (score.fid_high - score.fid) / half_width(1.0, groups)
    return _Freed(score.fid, score.fid_inf, se, groups)
