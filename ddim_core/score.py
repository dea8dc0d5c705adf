"""All scores of one cell from its features, each with what makes it a number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ddim_core.frechet import Reference
from ddim_core.kernel import kid, usual_subset_size
from ddim_core.manifold import Manifold, precision_recall
from ddim_core.moments import FeatureMoments
from ddim_core.uncertainty import frechet_interval

LEAST_GROUPS = 20
NEAREST = 3


@dataclass(frozen=True)
class CellScore:
    """What a set of generated images scores against a reference.

    Comparable only at equal image count, extractor, preprocessing and reference.

    Attributes:
        n_images, n_reference: Counts.
        fid, fid_low, fid_high: Plug-in Frechet distance and its 95 % interval; None where fewer
            than 4 images leave no groups to compare.
        fid_inf, fid_inf_low, fid_inf_high: Corrected to infinitely many generated images, with
            its 95 % interval; None where the images are too few for the number of features.
        fid_leave_one_out: The plug-in distance without each group in turn, for paired tests.
        group_sizes: Images in each of these groups.
        kid, kid_std: Unbiased kernel distance over 100 subsets of up to 1,000 images, and the
            spread between them (torch-fidelity's defaults).
        precision, recall: Shares of generated and real images inside the other set's manifold;
            None with fewer than 4 images.
    """

    n_images: int
    n_reference: int
    fid: float
    fid_low: float | None
    fid_high: float | None
    fid_inf: float | None
    fid_inf_low: float | None
    fid_inf_high: float | None
    fid_leave_one_out: list[float]
    group_sizes: list[int]
    kid: float
    kid_std: float
    precision: float | None
    recall: float | None


@dataclass(frozen=True, eq=False)
class ScoreReference:
    """A reference's features [m, d] with what every score against them needs, taken once."""

    features: NDArray[np.float32]
    gaussian: Reference
    manifold: Manifold | None

    @classmethod
    def of(cls, features: NDArray[np.float32]) -> ScoreReference:
        """Measures a reference.

        Raises:
            ValueError: If it has fewer than 2 images, or features are not finite.
        """
        gaussian = Reference.of(FeatureMoments.from_features(features))
        manifold = Manifold.of(features, NEAREST) if len(features) > NEAREST else None
        return cls(features, gaussian, manifold)


def score_features(
    shards: Sequence[NDArray[np.float32]], reference: NDArray[np.float32] | ScoreReference
) -> CellScore:
    """Scores a cell's feature shards against the reference's features.

    The jackknife leaves out one shard at a time; fewer than twenty shards are first cut into at
    least twenty groups (as far as groups of 2 allow): with few groups the spread itself is known
    badly, and paired tests lose power.

    Args:
        shards: Features [n, d] of each shard, in order of image index.
        reference: Features [m, d] of the real images, or what `ScoreReference.of` made of them.

    Raises:
        ValueError: If there are fewer than 2 images on either side, or features are not finite.
    """
    generated = np.concatenate(shards)
    groups = [FeatureMoments.from_features(group) for group in jackknife_groups(shards)]
    against = reference if isinstance(reference, ScoreReference) else ScoreReference.of(reference)
    frechet = frechet_interval(groups, against.gaussian)
    subset_size = usual_subset_size(len(generated), len(against.features))
    kid_mean, kid_std = kid(generated, against.features, subset_size=subset_size)
    precision: float | None = None
    recall: float | None = None
    if against.manifold is not None and len(generated) > NEAREST:
        precision, recall = precision_recall(against.manifold, generated)
    return CellScore(
        n_images=len(generated),
        n_reference=len(against.features),
        fid=frechet.fid,
        fid_low=frechet.fid_low,
        fid_high=frechet.fid_high,
        fid_inf=frechet.fid_inf,
        fid_inf_low=frechet.fid_inf_low,
        fid_inf_high=frechet.fid_inf_high,
        fid_leave_one_out=list(frechet.loo),
        group_sizes=list(frechet.sizes),
        kid=kid_mean,
        kid_std=kid_std,
        precision=precision,
        recall=recall,
    )


def jackknife_groups(shards: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    """Cuts shards into the groups that the jackknife leaves out, see `score_features`."""
    if len(shards) >= LEAST_GROUPS:
        return list(shards)
    pieces = -(-LEAST_GROUPS // len(shards))
    cut = [np.array_split(shard, max(1, min(pieces, len(shard) // 2))) for shard in shards]
    groups = [piece for group in cut for piece in group]
    sizes = [len(group) for group in groups]
    # Without its largest group a set must still have a covariance.
    return groups if sum(sizes) - max(sizes) >= 2 else [np.concatenate(shards)]
