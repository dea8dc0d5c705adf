"""All measures of one set of pictures that can be taken with what is known of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ddim_core.image_scores.registry import SCORES
from ddim_core.lora.scoring.likeness import ClipModel, DinoModel
from ddim_core.lora.scoring.scorecard import (
    Measure,
    best_correlation,
    broken,
    copied,
    distinct,
    drift,
    fallen,
    frechet_measure,
    groups_of,
    likeness,
    mean_measure,
    nearest,
    nearest_others,
    seen,
    share_measure,
    spread_within,
    usable,
)
from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import FeatureMoments
from ddim_core.text2image.judge import EmojiJudge

Images = NDArray[np.uint8]
Rows = NDArray[np.uint8] | NDArray[np.float32]
# What each measure says, and which way is better: 1 more, -1 less, 0 neither in itself.
MEANINGS: dict[str, tuple[str, int]] = {
    "style_distance": ("Frechet distance to the style's own images", -1),
    "base_distance": ("Frechet distance to the base's own images", 0),
    "style_probability": ("probability of OpenMoji's style, by the judge", 1),
    "asked_subject": ("share with the subject asked for, by the judge", 1),
    "asked_background": ("share with the background asked for, by the judge", 1),
    "clip_t": ("cosine of picture and prompt, by CLIP", 1),
    "subject_likeness": ("mean cosine to the subject's images, by the features", 1),
    "subject_correlation": ("largest correlation of edges with an image of the subject", 1),
    "clip_i": ("mean cosine to the subject's images, by CLIP", 1),
    "dino": ("mean cosine to the subject's images, by DINO", 1),
    "diversity": ("mean feature distance of pictures of one prompt", 0),
    "copy_risk_features": ("share nearer to a training image than 95 % of real ones, features", -1),
    "copy_risk_pixels": ("share nearer to a training image than 95 % of real ones, pixels", -1),
    "nearest_features": ("distance to the nearest training image, real ones' is 1, features", 0),
    "nearest_pixels": ("distance to the nearest training image, real ones' is 1, pixels", 0),
    "prior_drift": ("distance from the base's picture of the same noise, another draw's is 1", -1),
    "likeness_gain": ("likeness to the target's images gained over the base's picture", 1),
    "copies": ("share nearer to a training image than 95 % of real ones", -1),
    "broken": ("share outside the manifold of real images and the base's", -1),
    "off_prompt": ("share that does not show what was asked for", -1),
    "usable_gain": ("likeness gained in pictures that are no copies, whole and as asked", 1),
    **{kind.column: (f"{kind.column}, {kind.meaning}", 1) for kind in SCORES.values()},
}


class PictureFeatures(Protocol):
    """Maps pictures to features; `digest` is the sha256 of all that decides them."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...
    def __call__(self, images: Images) -> NDArray[np.float32]:
        """Maps uint8 [n, h, w, 3] to float32 [n, d]."""


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What pictures are compared with; all images uint8 [n, h, w, 3] of the pictures' size.

    Attributes:
        extractor: The feature space.
        training: The LoRA's training images.
        real: Real images of the same kind that it was not trained on; None: each training image
            is compared with the others.
        style: Images of the new style for these prompts; None where there is no style.
        base: Images as the base alone makes them, or was trained on, for these prompts.
        subject: Images of the subject; None where there is none.
        asked: By question what the judge should find in each picture.
        prior: Whether these are prompts whose pictures should stay as they were.
        clip, dino: For the similarities known by their names.
    """

    extractor: PictureFeatures
    training: Images
    real: Images | None = None
    style: Images | None = None
    base: Images | None = None
    subject: Images | None = None
    asked: Mapping[str, Sequence[str]] | None = None
    prior: bool = False
    clip: ClipModel | None = None
    dino: DinoModel | None = None


def take_measures(
    pictures: Images, before: Images, prompts: Sequence[str], known: Knowledge
) -> dict[str, Measure]:
    """Takes every measure that `known` allows, in the order of `MEANINGS`.

    Args:
        pictures: Of one scale of the LoRA, uint8 [n, h, w, 3].
        before: The base's pictures of the same prompts and noise.
        prompts: One per picture; those of one prompt give the diversity.
        known: What they are compared with; a training image that is given twice counts once, and
            a real image that is a training image does not count as unseen.

    Raises:
        ValueError: If all real images are training images.
    """
    known = _told_apart(known)
    groups = groups_of(prompts)
    features = known.extractor(pictures)
    several = min(prompts.count(prompt) for prompt in set(prompts)) > 1
    found: dict[str, Measure] = {}
    for name, images in (("style_distance", known.style), ("base_distance", known.base)):
        if images is not None:
            reference = Reference.of(FeatureMoments.from_features(known.extractor(images)))
            found[name] = frechet_measure(features, reference, groups)
    found |= _adherence(pictures, prompts, known, groups)
    if known.subject is not None:
        found |= _fidelity(pictures, features, known.subject, known, groups)
    if several:
        found["diversity"] = mean_measure(spread_within(features, prompts), groups)
    if not known.prior:
        found |= _copying(pictures, features, known, groups)
    elif several:
        moved = drift(features, known.extractor(before), prompts)
        found["prior_drift"] = mean_measure(moved, groups)
    found |= _usable(pictures, before, prompts, known, groups)
    return {name: found[name] for name in MEANINGS if name in found}


def _told_apart(known: Knowledge) -> Knowledge:
    real = None if known.real is None else known.real[~seen(known.real, known.training)]
    if real is not None and not len(real):
        raise ValueError("all held-out images are training images, so none tells copies")
    return replace(known, training=distinct(known.training), real=real)


def _usable(
    pictures: Images,
    before: Images,
    prompts: Sequence[str],
    known: Knowledge,
    groups: NDArray[np.int64],
) -> dict[str, Measure]:
    """What pictures gain in likeness to the target, style or subject, that can be used; by DINO
    where it is given, else by CLIP, else by the features."""
    target = known.style if known.subject is None else known.subject
    if target is None or known.prior:
        return {}
    space = next((model.images for model in (known.dino, known.clip) if model), known.extractor)
    drawn, own, wanted, training = map(space, (pictures, before, target, known.training))
    real = None if known.real is None else space(known.real)
    gained = likeness(drawn, wanted) - likeness(own, wanted)
    whole = [training, wanted, *([] if real is None else [real])]
    faults = {"broken": broken(drawn, own, whole)}
    if len(training) > 1 or real is not None:
        usual = nearest_others(training) if real is None else nearest(real, training)
        faults["copies"] = copied(nearest(drawn, training), usual) > 0.0
    off = _off_prompt(pictures, before, prompts, known)
    if off is not None:
        faults["off_prompt"] = off
    return {
        "likeness_gain": mean_measure(gained, groups),
        **{name: share_measure(holds, groups) for name, holds in faults.items()},
        "usable_gain": mean_measure(usable(gained, *faults.values()), groups),
    }


def _off_prompt(
    pictures: Images, before: Images, prompts: Sequence[str], known: Knowledge
) -> NDArray[np.bool_] | None:
    """Whether pictures do not show what was asked for: by the judge where it knows, else by CLIP,
    against the base's own; None where neither is at hand."""
    if isinstance(known.extractor, EmojiJudge) and known.asked is not None:
        right = known.extractor.answers(pictures, known.asked)
        return ~np.all(list(right.values()), axis=0)
    if known.clip is None:
        return None
    asked = known.clip.texts(prompts)
    return fallen(*((known.clip.images(x) * asked).sum(axis=1) for x in (pictures, before)))


def _adherence(
    pictures: Images, prompts: Sequence[str], known: Knowledge, groups: NDArray[np.int64]
) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    if isinstance(known.extractor, EmojiJudge):
        if known.style is not None:
            likely = known.extractor.probabilities(pictures)["style"][:, 1]
            found["style_probability"] = mean_measure(likely, groups)
        if known.asked is not None:
            right = known.extractor.answers(pictures, known.asked)
            found |= {f"asked_{q}": share_measure(given, groups) for q, given in right.items()}
    if known.clip is not None:
        cosines = (known.clip.images(pictures) * known.clip.texts(prompts)).sum(axis=1)
        found["clip_t"] = mean_measure(cosines, groups)
    return found


def _fidelity(
    pictures: Images,
    features: NDArray[np.float32],
    subject: Images,
    known: Knowledge,
    groups: NDArray[np.int64],
) -> dict[str, Measure]:
    spaces = {
        "subject_likeness": (features, known.extractor(subject)),
        **({"clip_i": (known.clip.images(pictures), known.clip.images(subject))}
           if known.clip else {}),
        **({"dino": (known.dino.images(pictures), known.dino.images(subject))}
           if known.dino else {}),
    }  # fmt: skip
    found = {name: mean_measure(likeness(*pair), groups) for name, pair in spaces.items()}
    found["subject_correlation"] = mean_measure(best_correlation(pictures, subject), groups)
    return found


def _copying(
    pictures: Images, features: NDArray[np.float32], known: Knowledge, groups: NDArray[np.int64]
) -> dict[str, Measure]:
    found: dict[str, Measure] = {}
    if len(known.training) < 2 and known.real is None:
        return found  # nothing tells how near real images of this kind lie to each other
    spaces: dict[str, tuple[Rows, Rows, Rows | None]] = {
        "features": (features, known.extractor(known.training),
                     None if known.real is None else known.extractor(known.real)),
        "pixels": (pictures, known.training, known.real),
    }  # fmt: skip
    for space, (drawn, training, real) in spaces.items():
        usual = nearest_others(training) if real is None else nearest(real, training)
        distances = nearest(drawn, training)
        found[f"copy_risk_{space}"] = share_measure(copied(distances, usual), groups)
        if usual.mean() > 0.0:
            found[f"nearest_{space}"] = mean_measure(distances / usual.mean(), groups)
    return found
