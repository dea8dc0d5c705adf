"""What peers compute of two sets of features, by their own estimators."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import lt

import numpy as np

from ddim_core.peers.half_precision import half_precision_recall
from ddim_core.scores.alone.vendi import vendi_score
from ddim_core.scores.cell_score import CellScore, groups_of
from ddim_core.scores.density_coverage import DensityCoverage, Neighbourhoods
from ddim_core.scores.distances.kernel import kid, usual_subset_size
from ddim_core.scores.further_scores import FurtherScores
from ddim_core.scores.precision_recall import Coverage, Manifold
from ddim_core.scores.set_score import FeatureSet
from ddim_core.statistics.moments import Floats
from ddim_core.statistics.pairs import look_at_pairs
from ddim_core.statistics.rows import FeatureRows

SEED = 0  # where a peer draws from NumPy's global stream: its number after `np.random.seed(0)`
ADM_SPLIT = 5000  # images of a split of ADM's Inception score
DGM_NEIGHBOURS, DGM_MOST = 5, 10_000  # of dgm-eval's precision, recall, density and coverage


@dataclass(frozen=True)
class Number:
    """A peer's number, with a 95 % interval of ours where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


Numbers = Mapping[str, Number]


@dataclass(frozen=True, eq=False)
class Sides:
    """Two sets as a peer sees them.

    Attributes:
        generated, reference: The sets.
        score, further: Our own of them; of a set known by its statistics what these tell.
    """

    generated: FeatureSet
    reference: FeatureSet
    score: CellScore
    further: FurtherScores

    @cached_property
    def made(self) -> FeatureRows | None:
        """Features of the generated images; None where only statistics are known."""
        shards = self.generated.shards
        return FeatureRows.of(shards, self.generated.name) if shards else None

    @cached_property
    def real(self) -> FeatureRows | None:
        """Features of the real images; None where only statistics are known."""
        shards = self.reference.shards
        return FeatureRows.of(shards, self.reference.name) if shards else None

    @property
    def fid(self) -> Number:
        """The Frechet distance."""
        return Number(self.score.fid, self.score.fid_low, self.score.fid_high)

    def around(self, value: float) -> Number:
        """A kernel distance with the interval of ours, whose draws it does not share."""
        if self.score.kid_low is None or self.score.kid_high is None:
            return Number(value)
        half = (self.score.kid_high - self.score.kid_low) / 2.0
        return Number(value, value - half, value + half)


def pytorch_fid(sides: Sides) -> Numbers:
    """Its distance; pytorch-fid 0.3.0."""
    return {"fid": sides.fid}


def clean_fid(sides: Sides) -> Numbers:
    """Its distance, and its kernel distance over 100 subsets; clean-fid 0.1.35.

    It draws a subset of the reference and then one of the generated images, without a seed; these
    are the draws after `numpy.random.seed(0)`. It multiplies in float32.
    """
    told = {"fid": sides.fid}
    if sides.made and sides.real:
        size = usual_subset_size(len(sides.made), len(sides.real))
        told["kid"] = sides.around(kid(sides.real, sides.made, subset_size=size, seed=SEED)[0])
    return told


def torch_fidelity(sides: Sides) -> Numbers:
    """Its distance, kernel distance and Inception score, under its names; torch-fidelity 0.4.0."""
    score, told = sides.score, {"frechet_inception_distance": sides.fid}
    if score.kid is not None and score.kid_std is not None:
        told["kernel_inception_distance_mean"] = Number(score.kid, score.kid_low, score.kid_high)
        told["kernel_inception_distance_std"] = Number(score.kid_std)
    further = sides.further
    if further.inception_score is not None and further.inception_score_std is not None:
        told["inception_score_mean"] = Number(further.inception_score)
        told["inception_score_std"] = Number(further.inception_score_std)
    return told


def adm(sides: Sides) -> Numbers:
    """ADM's table but for sFID: Inception score, FID, precision and recall."""
    told = {"FID": sides.fid}
    if sides.made and sides.generated.extractor and sides.generated.extractor.has_classes:
        logits = (
            sides.generated.extractor.class_scores(rows)
            for _, rows in _blocks_of(sides.made, ADM_SPLIT)
        )
        told["Inception Score"] = Number(float(np.mean([_adm_split(part) for part in logits])))
    if sides.made and sides.real and min(len(sides.made), len(sides.real)) > 3:
        precision, recall = half_precision_recall(sides.real, sides.made)
        told |= {"Precision": Number(precision), "Recall": Number(recall)}
    return told


def adm_spatial(sides: Sides) -> Numbers:
    """ADM's sFID."""
    return {"sFID": sides.fid}


def edm2_fid(sides: Sides) -> Numbers:
    """EDM2's distance of Inception features; EDM's is the same."""
    return {"fid": sides.fid}


def edm2_dino(sides: Sides) -> Numbers:
    """EDM2's distance of DINOv2 features."""
    return {"fd_dinov2": sides.fid}


def dgm_eval(sides: Sides) -> Numbers:
    """dgm-eval's fd, kd, prdc and Vendi score, the last of all images together.

    It draws subsets of the real and then of the generated images without a seed; these are the
    draws of `kd` and then `prdc` after `numpy.random.seed(0)`. Of more than 10,000 images it takes
    as many, drawn, for precision, recall, density and coverage. Its `kd_variance` is the standard
    deviation between subsets.
    """
    told = {"fd": sides.fid}
    if sides.made is None:
        return told
    vendi = vendi_score(sides.made, groups_of(sides.made))
    if vendi.value is not None:
        told["vendi"] = Number(vendi.value, vendi.low, vendi.high)
    if sides.real is None:
        return told
    n, m = len(sides.made), len(sides.real)
    size, stream = usual_subset_size(n, m), np.random.RandomState(SEED)
    mean, spread = kid(sides.real, sides.made, subset_size=size, seed=SEED)
    told |= {"kd_value": sides.around(mean), "kd_variance": Number(spread)}
    if min(n, m) <= DGM_NEIGHBOURS:
        return told
    for _ in range(100):  # what `kd` has drawn before
        stream.choice(m, size, replace=False)
        stream.choice(n, size, replace=False)
    real = _chosen(sides.real, stream.choice(m, min(DGM_MOST, n, m), replace=False))
    made = _chosen(sides.made, stream.choice(n, min(DGM_MOST, n, m), replace=False))
    return told | _strict_neighbours(real, made)


def _strict_neighbours(real: FeatureRows, made: FeatureRows) -> dict[str, Number]:
    """Precision, recall, density and coverage as `prdc` has them: strictly inside, one k."""
    manifold = Manifold.of(real, DGM_NEIGHBOURS)
    shares = Coverage(manifold, len(made), lt)
    near = Neighbourhoods(manifold, groups_of(made), DGM_NEIGHBOURS)
    look_at_pairs(made, real, manifold.origin, [shares, near])
    precision, recall = shares.shares()
    found: DensityCoverage = near.score()
    assert found.density is not None
    assert found.coverage is not None
    return {
        "precision": Number(precision),
        "recall": Number(recall),
        "density": Number(found.density, found.density_low, found.density_high),
        "coverage": Number(found.coverage, found.coverage_low, found.coverage_high),
    }


def _chosen(rows: FeatureRows, which: np.ndarray) -> FeatureRows:
    """The chosen rows; none of these numbers depends on their order."""
    return FeatureRows.of_array(rows.take(which))


def _blocks_of(rows: FeatureRows, size: int) -> Iterator[tuple[slice, np.ndarray]]:
    for start in range(0, len(rows), size):
        stop = min(start + size, len(rows))
        yield slice(start, stop), rows.read(start, stop)


def _adm_split(logits: Floats) -> float:
    """exp of the mean divergence from the split's own mean."""
    from scipy.special import log_softmax, xlogy

    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    marginal = p.mean(axis=0)
    return float(np.exp((p * log_p).sum(axis=1).mean() - xlogy(marginal, marginal).sum()))
