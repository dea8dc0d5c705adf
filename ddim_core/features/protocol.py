"""What a score has to be compared at: its protocol, recorded whole, and a refusal to mix two."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any
from typing import Protocol as Interface

from ddim_core.features.extractor import FeatureRecord

ESTIMATOR = "plug-in Frechet distance, float64; 95 % delete-a-group jackknife"
# Recorded, and free to differ: what is compared, and what moves no more than rounding.
FREE = frozenset({"versions", "sampler", "seed", "statistics_digest", "reference"})


@dataclass(frozen=True)
class Protocol:
    """All that a score has to be compared at, and what was scored.

    Attributes:
        features: What makes the features what they are; None where only numbers were given.
        native_size: Height x width of the generated images before the resize; `mixed` if several.
        reference_native_size: The same of the reference, as it was handed to the extractor.
        data_resize: How the reference came to that size: `native`, or the resize by which the
            data set was prepared for the model (Pillow's bicubic, short side, centre crop).
        n_images, n_reference: Counts; None where only statistics are known.
        shard_size: Images per unit of work, whose layout the jackknife's groups follow.
        reference_digest: The sha256 of the reference's images; None where only features are known.
        reference, split: What people call it.
        statistics_digest: The sha256 of the reference's statistics. Rounding of another machine
            moves it, so it decides only where a reference has no digest of images.
        estimator: Of the headline value and its interval.
        sampler: The settings that drew the images; empty for images from elsewhere.
        seed: Of the images' noise; None for images from elsewhere.
        versions: Of the libraries that computed features and scores.
    """

    features: FeatureRecord | None
    native_size: str | None
    reference_native_size: str | None
    data_resize: str | None
    n_images: int | None
    n_reference: int | None
    shard_size: int | None
    reference_digest: str | None
    reference: str | None
    split: str | None
    statistics_digest: str | None
    estimator: str = ESTIMATOR
    sampler: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """All fields side by side, those of the features among them, as plain JSON values."""
        record, digest = self.features, self.features.digest if self.features else None
        features = asdict(record) if record else dict.fromkeys(FEATURE_FIELDS)
        others = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "features"}
        return {**features, "extractor_digest": digest, **others}

    def to_json(self) -> str:
        """`flat`, for a table's column."""
        return json.dumps(self.flat(), sort_keys=True)


class Row(Interface):
    """A row of a table: its protocol as JSON, and columns that say a part of it."""

    @property
    def protocol(self) -> str | None: ...


FEATURE_FIELDS = tuple(f.name for f in fields(FeatureRecord))
COMPARED = tuple(
    name
    for name in (*FEATURE_FIELDS, "extractor_digest", *(f.name for f in fields(Protocol)))
    if name not in FREE and name != "features"
)


def differing_fields(a: Row, b: Row) -> list[str]:
    """Names the fields of protocol in which two rows of the table differ.

    Sampler settings, seed, checkpoint and versions of libraries may differ: they are what is
    compared, or move no more than rounding.

    Args:
        a, b: Rows with the table's columns; what the `protocol` column (JSON) does not tell is
            taken from the columns, and what neither row tells is not compared.
    """
    left, right = _told(a), _told(b)
    shared = [name for name in COMPARED if name in left and name in right]
    different = [name for name in shared if left[name] != right[name]]
    if left.get("reference_digest") is None or right.get("reference_digest") is None:
        one, other = left.get("statistics_digest"), right.get("statistics_digest")
        different += ["statistics_digest"] if one and other and one != other else []
    return different


def require_comparable(a: Row, b: Row) -> None:
    """Refuses to compare two rows of different protocol.

    Raises:
        ValueError: Names every field in which they differ, with both values.
    """
    different = differing_fields(a, b)
    if not different:
        return
    left, right = _told(a), _told(b)
    said = "; ".join(f"{name} is {left.get(name)!r} and {right.get(name)!r}" for name in different)
    raise ValueError(f"scores of different protocols cannot be compared: {said}")


def _told(row: Row) -> dict[str, Any]:
    """A row's protocol as far as it is told, by its record and its columns."""
    told = json.loads(row.protocol) if row.protocol else {}
    names = (*COMPARED, "statistics_digest")
    told |= {name: getattr(row, name) for name in names if hasattr(row, name)}
    return {name: None if value != value else value for name, value in told.items()}  # NaN: null
