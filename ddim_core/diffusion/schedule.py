"""Noise schedules, and the timesteps a sampler visits.

`alpha_bar` is the cumulative product of (1 - beta): the share of signal power left at a training
timestep. Song et al. 2021 (arXiv:2010.02502) write it alpha. Timestep -1 is clean data.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ddim_core.common.checks import require_choice
from ddim_core.diffusion.scheduler_config import settled
from ddim_core.diffusion.specs import NoiseSpec, Spacing

CLEAN = -1
"""The timestep of clean data, where the last step lands."""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """Signal power at every training timestep.

    Attributes:
        alpha_bar: float64 [T], read-only, strictly falling, in (0, 1); only the last may be 0.

    Raises:
        ValueError: If alpha_bar is not such a table; the message names the first bad entry.
    """

    alpha_bar: NDArray[np.float64]

    def __post_init__(self) -> None:
        table = np.array(self.alpha_bar, dtype=np.float64)
        if table.ndim != 1 or table.size == 0:
            raise ValueError(f"alpha_bar has shape {table.shape}; it must be [T] with T >= 1")
        falls = table < np.concatenate([[1.0], table[:-1]])  # NaN does not fall either
        above_zero = (table > 0.0) | ((table == 0.0) & (np.arange(table.size) == table.size - 1))
        if not (falls & above_zero).all():
            first = int(np.argmin(falls & above_zero))
            raise ValueError(
                f"alpha_bar[{first}] is {table[first]}; it must fall strictly from 1 and stay "
                f"above 0 (0 only at the last index, {table.size - 1})"
            )
        table.flags.writeable = False
        object.__setattr__(self, "alpha_bar", table)

    @property
    def n_train(self) -> int:
        """T, the number of training timesteps."""
        return self.alpha_bar.size

    def at(self, t: int) -> float:
        """Returns alpha_bar at timestep t in -1..T-1; at -1 (clean data) it is 1."""
        if not CLEAN <= t < self.n_train:
            raise ValueError(f"timestep is {t}; it must be {CLEAN}..{self.n_train - 1}")
        return 1.0 if t == CLEAN else float(self.alpha_bar[t])

    def level(self, t: float) -> float:
        """Returns the noise level at a timestep in 0..T-1, noise over signal; between two of them
        on the straight line, as diffusers' schedulers that ask there have it."""
        power = np.maximum(self.alpha_bar, 2.0**-24)
        sigmas = np.sqrt((1.0 - self.alpha_bar) / power)
        return float(np.interp(t, np.arange(self.n_train), sigmas))

    def zero_terminal_snr(self) -> NoiseSchedule:
        """Shifts and scales sqrt(alpha_bar) so that it ends at 0 and keeps its first value.

            sqrt(alpha_bar'_t) = (r_t - r_T) r_0 / (r_0 - r_T),  r = sqrt(alpha_bar)

        Source: Lin et al. 2023 (arXiv:2305.08891), algorithm 1.

        Raises:
            ValueError: If there is one timestep only, which cannot keep its value and become 0.
        """
        if self.n_train == 1:
            raise ValueError("a schedule of 1 timestep cannot end at zero SNR; it needs 2 or more")
        root = np.sqrt(self.alpha_bar)
        first, last = float(root[0]), float(root[-1])
        rescaled = (root - last) * (first / (first - last))
        return NoiseSchedule(rescaled**2)

    @classmethod
    def from_betas(cls, betas: ArrayLike) -> NoiseSchedule:
        """Builds alpha_bar_t = prod_{i <= t} (1 - beta_i) from betas [T].

        Raises:
            ValueError: Naming the first beta outside (0, 1); exactly 1 may stand at the end.
        """
        table = np.asarray(betas, dtype=np.float64)
        if table.ndim != 1 or table.size == 0:
            raise ValueError(f"betas have shape {table.shape}; they must be [T] with T >= 1")
        inside = (table > 0.0) & (table < 1.0)  # NaN and infinities lie outside
        inside[-1] |= table[-1] == 1.0
        if not inside.all():
            first = int(np.argmin(inside))
            raise ValueError(
                f"beta[{first}] is {table[first]}; a beta must lie in (0, 1) "
                f"(1 only at the last index, {table.size - 1})"
            )
        return cls(np.cumprod(1.0 - table, dtype=np.float64))

    @classmethod
    def linear(cls, n_train: int, beta_start: float, beta_end: float) -> NoiseSchedule:
        """Beta linear in t (Ho et al. 2020, arXiv:2006.11239: 1e-4 to 0.02 over 1000 steps)."""
        return cls.from_betas(np.linspace(beta_start, beta_end, n_train))

    @classmethod
    def quad(cls, n_train: int, beta_start: float, beta_end: float) -> NoiseSchedule:
        """Sqrt(beta) linear in t (latent diffusion; diffusers calls it scaled_linear)."""
        _require_non_negative(beta_start, beta_end)
        return cls.from_betas(np.linspace(beta_start**0.5, beta_end**0.5, n_train) ** 2)

    @classmethod
    def sigmoid(cls, n_train: int, beta_start: float, beta_end: float) -> NoiseSchedule:
        """Beta rises from start to end along a sigmoid over [-6, 6] (official DDIM code)."""
        rise = 1.0 / (1.0 + np.exp(-np.linspace(-6.0, 6.0, n_train)))
        return cls.from_betas(rise * (beta_end - beta_start) + beta_start)

    @classmethod
    def constant(cls, n_train: int, beta: float) -> NoiseSchedule:
        """The same beta at every t (official DDIM code: const)."""
        return cls.from_betas(np.full(n_train, beta))

    @classmethod
    def jsd(cls, n_train: int) -> NoiseSchedule:
        """Beta = 1/T, 1/(T-1), ..., 1: alpha_bar falls linearly to 0 (official DDIM code)."""
        return cls.from_betas(1.0 / np.linspace(n_train, 1, n_train))

    @classmethod
    def cosine(cls, n_train: int) -> NoiseSchedule:
        """alpha_bar follows cos^2((t / T + 0.008) / 1.008 pi / 2), betas capped at 0.999.

        Source: Nichol and Dhariwal 2021 (arXiv:2102.09672), eq. 17; diffusers calls it
        squaredcos_cap_v2.
        """
        grid = np.arange(n_train + 1) / n_train
        curve = np.cos((grid + 0.008) / 1.008 * (math.pi / 2)) ** 2
        return cls.from_betas(np.minimum(1.0 - curve[1:] / curve[:-1], 0.999))

    @classmethod
    def from_spec(cls, spec: NoiseSpec) -> NoiseSchedule:
        """Builds the schedule of a spec; `constant` takes its beta from beta_end.

        Raises:
            ValueError: If kind `given` lacks its T betas, or another kind is given betas.
        """
        if (spec.betas is not None) != (spec.kind == "given"):
            raise ValueError(
                f"kind is {spec.kind!r} and betas are {'not ' if spec.betas is None else ''}given; "
                "betas belong to kind 'given', and only there"
            )
        if spec.betas is not None and len(spec.betas) != spec.n_train:
            raise ValueError(f"{len(spec.betas)} betas for n_train {spec.n_train}; give as many")
        schedule = _schedule_of_kind(spec)
        return schedule.zero_terminal_snr() if spec.zero_snr else schedule

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any]) -> NoiseSchedule:
        """Builds the schedule of a diffusers scheduler config, in float64.

        Missing entries take the defaults of diffusers' class of that name (`settled`). Diffusers'
        own table is float32 and differs by its rounding. `set_alpha_to_one` plays no part: see
        `lint`.

        Raises:
            ValueError: If beta_schedule is unknown, trained_betas are not T many, or the class has
                no schedule of betas.
        """
        config = settled(config)
        n_train = int(config.get("num_train_timesteps", 1000))
        trained = config.get("trained_betas")
        name = config.get("beta_schedule", "linear")
        kind = "given" if trained is not None else DIFFUSERS_KINDS.get(name)
        if kind is None:
            raise ValueError(
                f"beta_schedule is {name!r}; it must be one of {', '.join(DIFFUSERS_KINDS)}"
            )
        return cls.from_spec(
            NoiseSpec(
                kind=kind,
                n_train=n_train,
                beta_start=config.get("beta_start", 1e-4),
                beta_end=config.get("beta_end", 0.02),
                zero_snr=bool(config.get("rescale_betas_zero_snr", False)),
                betas=None if trained is None else tuple(float(beta) for beta in trained),
            )
        )


DIFFUSERS_KINDS: dict[str, Literal["linear", "quad", "cosine", "sigmoid"]] = {
    "linear": "linear",
    "scaled_linear": "quad",
    "squaredcos_cap_v2": "cosine",
    "sigmoid": "sigmoid",
}


def _schedule_of_kind(spec: NoiseSpec) -> NoiseSchedule:
    n_train, start, end = spec.n_train, spec.beta_start, spec.beta_end
    match spec.kind:
        case "linear":
            return NoiseSchedule.linear(n_train, start, end)
        case "quad":
            return NoiseSchedule.quad(n_train, start, end)
        case "sigmoid":
            return NoiseSchedule.sigmoid(n_train, start, end)
        case "constant":
            return NoiseSchedule.constant(n_train, end)
        case "cosine":
            return NoiseSchedule.cosine(n_train)
        case "jsd":
            return NoiseSchedule.jsd(n_train)
        case "given":
            return NoiseSchedule.from_betas(spec.betas or ())


def _require_non_negative(beta_start: float, beta_end: float) -> None:
    # A negative beta has no square root to be linear in (Python would make it complex).
    if not (beta_start >= 0.0 and beta_end >= 0.0):
        raise ValueError(f"beta runs from {beta_start} to {beta_end}; both must lie in (0, 1)")


def timesteps(n_train: int, n_steps: int, spacing: Spacing, steps_offset: int = 0) -> list[int]:
    """Chooses the timesteps at which the model is asked, from noisy to clean.

    - `uniform`: every (T // S)-th from 0, as the official DDIM code: more than S of them when S
      does not divide T.
    - `quad`: squares of S even points in [0, sqrt(0.8 T)], cut to integers, as the official code;
      duplicates are removed, so there may be fewer than S.
    - `leading`, `linspace`, `trailing`: as diffusers (Lin et al. 2023, arXiv:2305.08891, table 2).
      Where rounding makes diffusers' `trailing` list a last timestep -1, which is no training
      timestep (T = 1000, S = 61), it is left out.

    Args:
        n_train: T, the number of training timesteps.
        n_steps: S in 1..T.
        spacing: One of the above.
        steps_offset: Added to every timestep of `leading`; the others know no offset.

    Returns:
        Distinct timesteps in 0..T-1, descending.

    Raises:
        ValueError: If S lies outside 1..T, or the offset pushes a timestep out of 0..T-1.
    """
    require_choice("spacing", spacing, get_args(Spacing))
    if not 1 <= n_steps <= n_train:
        raise ValueError(f"{n_steps} steps of {n_train} training timesteps; take 1..{n_train}")
    chosen = list(dict.fromkeys(listed_by_peers(n_train, n_steps, spacing, steps_offset)))
    if spacing == "trailing" and chosen[-1] == CLEAN:
        chosen.pop()
    if chosen[0] >= n_train or chosen[-1] < 0:
        raise ValueError(
            f"steps_offset {steps_offset} moves the timesteps of {n_steps} steps to "
            f"{chosen[-1]}..{chosen[0]}; they must stay in 0..{n_train - 1}"
        )
    return chosen


def listed_by_peers(n_train: int, n_steps: int, spacing: Spacing, steps_offset: int) -> list[int]:
    """The rule's own list, descending, with the duplicates and the -1 that `timesteps` removes."""
    match spacing:
        case "uniform":
            ascending = np.arange(0, n_train, n_train // n_steps)
        case "quad":
            ascending = np.trunc(np.linspace(0, np.sqrt(n_train * 0.8), n_steps) ** 2)
        case "leading":
            ascending = np.arange(n_steps) * (n_train // n_steps) + steps_offset
        case "linspace":
            ascending = np.round(np.linspace(0, n_train - 1, n_steps))
        case "trailing":
            # The stride stays a float and the count is arange's, as in diffusers.
            ascending = np.round(np.arange(n_train, 0, -n_train / n_steps))[::-1] - 1
    return [int(t) for t in ascending[::-1]]


def step_pairs(descending: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields the steps (t, s) that are taken: from each timestep to the next, last to -1."""
    return pairwise([*descending, CLEAN])
