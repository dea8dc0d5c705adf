"""A moving average of another width than those that were kept: EDM2's post-hoc reconstruction.

Source: Karras et al. 2024 (arXiv:2312.02696), section 3 and appendix C. Their sigma_rel is `std`.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAMES = re.compile(r"(.*)-(\d{1,12})-(\d\.\d{1,9})\.pkl")
NAMED = "network-snapshot-0134217-0.050.pkl"
NETWORK = Path("unet", "diffusion_pytorch_model.safetensors")  # in a converted checkpoint


@dataclass(frozen=True)
class Average:
    """A moving average by a power function, p(t) ~ t^gamma up to its end.

    Attributes:
        end: Where it was taken, such as images seen; any unit, the same for all.
        std: Standard deviation of p over its length, in (0, 1 / sqrt(12)) for gamma > 0.

    Raises:
        ValueError: If a number lies outside its range.
    """

    end: float
    std: float

    def __post_init__(self) -> None:
        if not 0.0 < self.end < np.inf:
            raise ValueError(f"an average ends at {self.end}; it must end above 0")
        if not 0.0 < self.std < 12.0**-0.5:
            raise ValueError(
                f"an average's std is {self.std}; it must lie above 0 and below {12.0**-0.5:.4f}, "
                "that of a plain mean"
            )

    @property
    def gamma(self) -> float:
        """The exponent: std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)), eqs. 123 and 126."""
        t = self.std**-2.0
        return float(np.roots([1.0, 7.0, 16.0 - t, 12.0 - t]).real.max())


def posthoc_coefficients(kept: Sequence[Average], wanted: Average) -> NDArray[np.float64]:
    """Returns how much of each kept average makes the wanted one: weights [n] that sum to 1.

        A x = b,   A_ij = <p_i, p_j>,   b_i = <p_i, p_wanted>

    whose sum of profiles is the nearest to the wanted one.

    Source: algorithm 3 there.

    Args:
        kept: At least one, and each once.
        wanted: Ends no later than the last of them, or it is guessed.

    Raises:
        ValueError: If there are none, or two are equal.
    """
    if not kept:
        raise ValueError("there is no average; at least one must be kept")
    if len(set(kept)) < len(kept):
        raise ValueError(
            f"of {len(kept)} averages {len(set(kept))} differ; all must, of one or more"
        )
    both = np.array([[_inner(a, b) for b in (*kept, wanted)] for a in kept])
    found = np.linalg.solve(both[:, :-1], both[:, -1])
    return found / found.sum()


def _inner(a: Average, b: Average) -> float:
    """<p_a, p_b>, the integral of both profiles' product over where both are (eq. 151)."""
    short, long = (a, b) if a.end < b.end else (b, a)
    ratio = (short.end / long.end) ** long.gamma
    scale = (a.gamma + 1.0) * (b.gamma + 1.0) / (a.gamma + b.gamma + 1.0)
    return scale * ratio / long.end


def profile_error(kept: Sequence[Average], wanted: Average, weights: NDArray[np.float64]) -> float:
    """Returns how far the weighted profiles lie from the wanted one: |sum c_i p_i - p| / |p|, in
    L2; 0 is the wanted average itself."""
    everyone = [*kept, wanted]
    inner = np.array([[_inner(a, b) for b in everyone] for a in everyone])
    c = np.append(weights, -1.0)
    return float(np.sqrt(max(c @ inner @ c, 0.0) / inner[-1, -1]))


def kept_in(folder: Path, kimg: int | None = None) -> dict[Path, Average]:
    """Returns the averages that a run of EDM2 kept in a folder, by the names of their snapshots.

    Args:
        folder: Of network-snapshot-0134217-0.050.pkl and others.
        kimg: Up to which, in thousands of images; None for all.

    Raises:
        ValueError: If there are none, of several runs or of one std alone, or none at kimg.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {str(folder)!r} of snapshots, such as {NAMED}")
    found = {path: match for path in folder.iterdir() if (match := NAMES.fullmatch(path.name))}
    runs = sorted({match[1] for match in found.values()})
    if len(runs) > 1:
        raise ValueError(
            f"{folder.name} holds snapshots of {len(runs)} runs, {runs[0]:.60} and {runs[1]:.60}; "
            "an average is of one"
        )
    at = sorted({int(match[2]) for match in found.values()})
    if kimg is not None and kimg not in at:
        raise ValueError(
            f"kimg is {kimg}, and {folder.name} has no snapshot of it; it has "
            f"{', '.join(map(str, at[-5:])) or f'none, such as {NAMED}'}"
        )
    last = at[-1] if kimg is None and at else kimg or 0
    kept = {
        path: Average(_images(int(match[2])), float(match[3]))
        for path, match in found.items() if 0 < int(match[2]) <= last
    }  # fmt: skip
    if len({average.std for average in kept.values()}) < 2:
        raise ValueError(
            f"{folder.name} holds snapshots of {len({a.std for a in kept.values()})} widths (std); "
            f"an average of another width takes those of two or more, such as {NAMED} and "
            "network-snapshot-0134217-0.100.pkl"
        )
    return dict(sorted(kept.items(), key=lambda item: (item[1].end, item[1].std)))


def _images(kimg: int) -> int:
    """Images seen, of which a name gives whole thousands: trainings save at multiples of 1024."""
    near = (kimg * 1000 + 999) // 1024 * 1024
    return near if near // 1000 == kimg else kimg * 1000


def reconstruct(
    kept: Mapping[Path, Average], files: Mapping[Path, Mapping[str, Path]], std: float, out: Path
) -> None:
    """Writes the checkpoint of another average of a run: a weighted sum of its snapshots.

    Networks that were kept in half precision are rounded to it again, as by EDM2's
    reconstruct_phema.py; what all snapshots share, such as frequencies, stays.

    Args:
        kept: As of `kept_in`.
        files: Of each snapshot, as of `source_files`.
        std: Of the wanted average, which ends where the last of them does.
        out: An empty folder, which becomes one that `load_checkpoint` opens.

    Raises:
        ValueError: If a snapshot is damaged or of another network, or std can be of no average.
    """
    # Slow to import, and names alone are looked at before.
    from safetensors.torch import load_file

    from ddim_core.checkpoints.checkpoint import Provenance
    from ddim_core.checkpoints.convert import adopt
    from ddim_core.checkpoints.weight_files import save_state

    *before, last = kept
    wanted = replace(kept[last], std=std)
    weights = posthoc_coefficients([*kept.values()], wanted)
    adopt(files[last], out)
    base = load_file(out / NETWORK)
    made = {name: weight.double() for name, weight in base.items()}
    for path, share in zip(before, weights[:-1], strict=True):
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent, path.name)
            folder.mkdir()
            adopt(files[path], folder)
            configs = [(place / NETWORK).with_name("config.json") for place in (folder, out)]
            if len({config.read_text() for config in configs}) > 1:
                raise ValueError(f"{path.name} is of another network than {last.name}")
            for name, weight in load_file(folder / NETWORK).items():
                made[name] += share * (weight.double() - base[name].double())
    half = all(weight.half().float().equal(weight) for weight in base.values())
    state = {name: weight.float() for name, weight in made.items()}
    save_state({n: w.half().float() if half else w for n, w in state.items()}, out / NETWORK)
    error = profile_error([*kept.values()], wanted, weights)
    told = Provenance.read(out)
    sentence = (
        f"The weights are those of {len(kept)} snapshots, summed to a moving average of std "
        f"{std:g}, from whose profile the sum's differs by {100.0 * error:.2g} %."
    )
    replace(told, assumed=(*told.assumed, sentence)).write(out)
