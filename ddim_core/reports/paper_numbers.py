"""The DDIM paper's own numbers: CIFAR10, 32x32, the network of Ho et al. 2020, T = 1000.

Source: Song et al. 2021 (arXiv:2010.02502), tables 1 and 2. FID there is of 50,000 images by
Inception features, so it compares with no score of another model, data set, count or extractor;
only its course over S and eta does.
"""

from __future__ import annotations

from dataclasses import dataclass

from ddim_core.decisions.row import Setting

SOURCE = "Song et al. 2021 (arXiv:2010.02502)"
TABLE_1_SETTING = "CIFAR10 32x32, Inception features, N = 50000"
TABLE_2_SETTING = "CIFAR10 32x32"

STEPS = (10, 20, 50, 100, 1000)
_FID: dict[float | None, tuple[float, ...]] = {  # by eta; None is sigma-hat
    0.0: (13.36, 6.84, 4.67, 4.16, 4.04),
    0.2: (14.04, 7.11, 4.77, 4.25, 4.09),
    0.5: (16.66, 8.35, 5.25, 4.46, 4.29),
    1.0: (41.07, 18.36, 8.01, 5.78, 4.73),
    None: (367.43, 133.37, 32.72, 9.99, 3.17),
}

RECONSTRUCTION: dict[int, float] = {
    10: 0.014, 20: 0.0065, 50: 0.0023, 100: 0.0009, 200: 0.0004, 500: 0.0001, 1000: 0.0001,
}  # fmt: skip
"""Table 2: per-dimension squared error after encoding and decoding with S steps, by S."""


@dataclass(frozen=True)
class PaperCell:
    """A cell of the paper's, named as in our table. Of sigma-hat, clip is what the official code
    does (its `ddpm_noisy`); the paper does not say."""

    steps: int
    eta: float
    variance: str
    clip: bool
    fid: float
    fid_low: None = None
    fid_high: None = None


def table_1() -> list[PaperCell]:
    """Returns table 1."""
    return [
        PaperCell(
            steps=steps,
            eta=1.0 if eta is None else eta,
            variance="sigma_hat" if eta is None else "eta",
            clip=eta is None,
            fid=fid,
        )
        for eta, line in _FID.items()
        for steps, fid in zip(STEPS, line, strict=True)
    ]


def fid_of(row: Setting) -> float | None:
    """Returns the paper's FID at a row's S and line, or None where table 1 has none."""
    eta = None if row.variance == "sigma_hat" else row.eta
    if row.steps not in STEPS or eta not in _FID:
        return None
    return _FID[eta][STEPS.index(row.steps)]
