"""Data set name in, images in the store out."""

from __future__ import annotations

from dataclasses import dataclass

from ddim_core.diffusion.specs import ImageSpec
from ddim_core.images.image_set import ImageSet
from ddim_core.images.image_table import from_arrow, to_arrow
from ddim_core.images.load import load_images, open_source
from tasks.storage import store
from tasks.storage.caching import cached_task
from tasks.storage.store import ArtifactRef

MOST_NAMED = 20


def content_of(dataset: str, spec: ImageSpec = ImageSpec()) -> str:  # noqa: B008 (frozen)
    """Returns what identifies a data set's raw content, wherever it lies."""
    return open_source(dataset, spec).content()


@dataclass(frozen=True)
class PreparedImages(ArtifactRef):
    """A split of a data set, made ready, and what is in it.

    Attributes:
        n: Images.
        resolution: Of each, height and width.
        n_classes: None without labels.
        resize: How they came to that size; `native` if they had it.
        fingerprint: Of the raw images.
        licence: None if it is not known.
        broken: Names of images that are left out.
        notes: For people.
    """

    n: int
    resolution: int
    channels: int
    n_classes: int | None
    resize: str
    fingerprint: str
    licence: str | None
    broken: list[str]
    notes: list[str]


@cached_task
def prepare_data(
    content: str,
    split: str,
    resolution: int | None,
    location: str,
    channels: int | None = None,
    spec: ImageSpec = ImageSpec(),  # noqa: B008 (frozen)
) -> PreparedImages:
    """Loads and resizes one split of a data set.

    Cached on the content, wherever it lies. The artefact is an Arrow stream with the columns
    `image`, `label` and `caption`, which `datasets` opens; its digest is the fingerprint of the
    prepared images, and changes with any pixel of the raw ones.
    """
    data = load_images(location, split, resolution, channels, spec)
    if content_of(location, spec) != content:
        raise ValueError(f"the files of {location!r} changed while they were read; run it again")
    n_images, height, _, n_channels = data.images.shape
    return PreparedImages(
        **vars(store.put(to_arrow(data), "images")),
        n=n_images,
        resolution=height,
        channels=n_channels,
        n_classes=len(data.class_names) or None,
        resize="pillow-bicubic" if data.resized else "native",
        fingerprint=data.fingerprint,
        licence=data.licence,
        broken=list(data.broken),
        notes=list(data.notes),
    )


def notes_on(*splits: PreparedImages) -> list[str]:
    """Says, in sentences, what a reader of a report must know of prepared splits."""
    licences = {split.licence for split in splits if split.licence}
    notes = [f"Real images: {licence}." for licence in sorted(licences)]
    told = dict.fromkeys(note for split in splits for note in split.notes)
    notes += [f"Real images: {note}." for note in told]
    if broken := list(dict.fromkeys(name for split in splits for name in split.broken)):
        more = f"; and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
        named = "; ".join(broken[:MOST_NAMED]) + more
        notes.append(f"Real images left out, because they are broken ({len(broken)}): {named}.")
    return notes


def prepared(ref: ArtifactRef) -> ImageSet:
    """Reads a prepared split back, with its labels, captions and licence."""
    return from_arrow(store.get(ref))
