"""Files of statistics and features, other people's and ours: what is in an .npz."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddim_core.features.extractor import FeatureRecord
from ddim_core.images.sources.arrays import array_headers, image_keys, read_arrays
from ddim_core.statistics.moments import FeatureMoments, Floats, check_features
from ddim_core.statistics.rows import FeatureRows

LEAST_LIMIT, MOST_UNPACKED = 2**27, 100  # bytes as float64, and times the length of the file
MOST_FEATURES = 2**14  # a covariance of which has 2 GB
FEATURE_KEYS = ("features", "feats", "reps", "arr_0", "")  # the last is that of an .npy


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and covariance of features, as pytorch-fid and clean-fid keep them.

    Attributes:
        mu: [d].
        sigma: [d, d], divided by n - 1.
        count: n; None where the file does not say.
        record: What made the features; None where the file does not say.
    """

    mu: Floats
    sigma: Floats
    count: int | None = None
    record: FeatureRecord | None = None

    @classmethod
    def checked(
        cls,
        name: str,
        mu: NDArray[Any],
        sigma: NDArray[Any],
        count: int | None = None,
        record: FeatureRecord | None = None,
    ) -> Statistics:
        """Takes the statistics of a file of this name.

        Raises:
            ValueError: If they are not a mean [d] and a covariance [d, d], or not finite.
        """
        if any(array.dtype.kind not in "fiu" for array in (mu, sigma)) or not mu.size:
            raise ValueError(f"{name} has mu and sigma of {mu.dtype} and {sigma.dtype}, or none")
        mean = np.atleast_1d(np.asarray(mu, dtype=np.float64))
        covariance = np.atleast_2d(np.asarray(sigma, dtype=np.float64))
        if mean.ndim != 1 or covariance.shape != (mean.size, mean.size):
            raise ValueError(
                f"{name} has mu {mean.shape} and sigma {covariance.shape}; they must be [d] and "
                "[d, d]"
            )
        if mean.size > MOST_FEATURES:
            raise ValueError(f"{name} has {mean.size} features; at most {MOST_FEATURES} are scored")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError(f"{name} holds a number that is not finite; every statistic must be")
        if (least := covariance.diagonal().min()) < 0.0:
            raise ValueError(f"{name} has a variance of {least:g} in its sigma; none is below 0")
        # FID is defined by the symmetric part; saved covariances differ from it by rounding.
        skew = np.abs(covariance - covariance.T).max()
        if skew > 1e-6 * max(np.abs(covariance).max(), 1e-300):
            raise ValueError(f"{name} has a sigma that is not symmetric; a covariance is")
        return cls(mean, (covariance + covariance.T) / 2.0, count, record)

    def moments(self) -> FeatureMoments:
        """The same as moments; where n is unknown, one that is large enough for full rank.

        Then n - 1 is a power of two, so that the covariance keeps its bits.
        """
        dof = (self.count - 1) if self.count else 2 ** (self.mu.size.bit_length() + 1)
        return FeatureMoments(dof + 1, self.mu, self.sigma * dof)

    @property
    def digest(self) -> str:
        """The sha256 of mean and covariance."""
        content = np.ascontiguousarray(self.mu).tobytes()
        return hashlib.sha256(content + np.ascontiguousarray(self.sigma).tobytes()).hexdigest()


def statistics_of(features: NDArray[np.float32], record: FeatureRecord | None) -> Statistics:
    """Takes the statistics of features [n, d], n >= 2."""
    moments = FeatureMoments.from_features(features)
    return Statistics(moments.mean, moments.covariance, moments.count, record)


def statistics_of_rows(rows: FeatureRows, record: FeatureRecord | None) -> Statistics:
    """The same of rows in shards, without putting them together."""
    moments = FeatureMoments.of_chunks(len(rows), rows.read)
    return Statistics(moments.mean, moments.covariance, moments.count, record)


def save_statistics(path: Path, statistics: Statistics) -> None:
    """Writes an .npz that pytorch-fid reads (`mu`, `sigma`), with our `count` and `record` beside.

    Raises:
        ValueError: If the name does not end in .npz, without which pytorch-fid reads no statistics.
    """
    if path.suffix != ".npz":
        raise ValueError(f"the statistics file is {path.name!r}; its name must end in .npz")
    more: dict[str, Any] = {}
    if statistics.count:
        more["count"] = np.int64(statistics.count)
    if statistics.record:
        more["record"] = np.array(json.dumps(asdict(statistics.record), sort_keys=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, mu=statistics.mu, sigma=statistics.sigma, **more)


def holds_images(path: Path) -> bool:
    """Tells an .npz or .npy of images, statistics beside them or not, from one without.

    Raises:
        ValueError: If it is damaged.
    """
    headers = array_headers(path)
    if any(len(headers[k].shape) == 2 for k in _keys(headers)):
        return False
    return bool(image_keys(headers))


def read_npz(path: Path) -> Statistics | NDArray[Any]:
    """Reads an .npz: statistics, features float [n, d], or images uint8 [n, h, w, c].

    Statistics are `mu` and `sigma` (pytorch-fid, clean-fid, and ours with `count` and `record`);
    features are `features` (ours), `feats` (clean-fid's KID) or `reps` (dgm-eval); the one array
    `arr_0`, or of an .npy, is features or images by its form. Nothing pickled is read.

    Raises:
        ValueError: If it is none of these, or a number is not finite.
    """
    headers = array_headers(path)
    wanted = [k for k in headers if k in {"mu", "sigma", "count", "record", *FEATURE_KEYS}]
    _require_small(path, {key: headers[key].shape for key in wanted})
    arrays = read_arrays(path, wanted)
    if {"mu", "sigma"} <= set(arrays):
        return read_statistics(path)
    found = [arrays[name] for name in _keys(headers)]
    if len(found) == 1 and found[0].ndim == 2:
        return check_features(found[0], f"{path.name}:features")
    if len(found) == 1 and found[0].ndim == 4 and found[0].dtype == np.uint8:
        return found[0]
    raise ValueError(
        f"{path.name} holds {', '.join(headers) or 'nothing'}; it must hold mu and sigma, features "
        "[n, d], or images [n, h, w, c]"
    )


def _require_small(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """A file of a kilobyte may hold millions of zeros; they are worked on in float64."""
    size, length = sum(8 * math.prod(shape) for shape in shapes.values()), path.stat().st_size
    if size > max(LEAST_LIMIT, MOST_UNPACKED * length):
        told = ", ".join(f"{key} {list(shape)}" for key, shape in shapes.items())
        raise ValueError(
            f"{path.name} holds {told}, {size} bytes of numbers from {length}; that is too many"
        )
    widest = max((shape[-1] for shape in shapes.values() if len(shape) == 2), default=0)
    if widest > MOST_FEATURES:
        raise ValueError(f"{path.name} has {widest} features; at most {MOST_FEATURES} are scored")


def _keys(names: Iterable[str]) -> list[str]:
    return [name for name in FEATURE_KEYS if name in names]


def read_statistics(path: Path, mu: str = "mu", sigma: str = "sigma") -> Statistics:
    """Reads mean and covariance of an .npz, under their keys there.

    Raises:
        ValueError: If they are not statistics, or a number is not finite.
    """
    headers = array_headers(path)
    wanted = [key for key in (mu, sigma, "count", "record") if key in headers]
    _require_small(path, {key: headers[key].shape for key in wanted})
    arrays = read_arrays(path, wanted)
    count = record = None
    try:
        if "count" in arrays:
            count = int(arrays["count"])
        if "record" in arrays:
            record = FeatureRecord.from_bytes(str(arrays["record"]).encode())
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(
            f"{path.name} has a count or record that is none of ours: {error}"
        ) from error
    return Statistics.checked(path.name, arrays[mu], arrays[sigma], count, record)
