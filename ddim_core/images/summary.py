"""What a data set is: counts by split and class, native sizes, fingerprint, broken images."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, replace

from ddim_core.diffusion.specs import ImageSpec
from ddim_core.images.load import Reading, open_source
from ddim_core.images.sources.source import ALL


@dataclass(frozen=True)
class SplitSurvey:
    """One split of a data set.

    Attributes:
        split: Its name.
        n: Images that can be read.
        classes: How many there are of each class; empty where there are no classes.
        sizes: How many there are of each native size, as `(width, height)`.
        captions: The first captions, if it has any.
        broken: The images that cannot be read, each with the reason.
        fingerprint: sha256 over native pixels, classes and captions.
    """

    split: str
    n: int
    classes: dict[str, int]
    sizes: dict[tuple[int, int], int]
    captions: tuple[str, ...]
    broken: tuple[str, ...]
    fingerprint: str


@dataclass(frozen=True)
class Survey:
    """A data set, split by split; `licence` is empty where none is known, and `notes` say what was
    left out and how the rest was understood."""

    name: str
    licence: str
    splits: tuple[SplitSurvey, ...]
    notes: tuple[str, ...] = ()


def survey(dataset: str, spec: ImageSpec = ImageSpec()) -> Survey:  # noqa: B008 (frozen)
    """Reads every image of a data set once; broken ones are named, and none is refused.

    Raises:
        ValueError: If there is no such data set, or a split without an image that can be read.
    """
    source = open_source(dataset, spec)
    patient = replace(spec, max_broken=sys.maxsize)
    readings = [Reading(source, split, patient) for split in source.splits or (ALL,)]
    seen = tuple(_seen(reading) for reading in readings)
    return Survey(source.name, source.licence, seen, source.notes)


def _seen(reading: Reading) -> SplitSurvey:
    n = sum(1 for _ in reading)
    labelled = reading.labels() is not None
    counts = Counter(str(name) for name in reading.classes)
    return SplitSurvey(
        split=reading.split,
        n=n,
        classes={name: counts[name] for name in reading.source.class_names if labelled},
        sizes=dict(sorted(reading.sizes.items())),
        captions=(reading.captions() or ())[:3],
        broken=tuple(reading.broken),
        fingerprint=reading.fingerprint.hexdigest(),
    )
