"""Features whose true Frechet distance is known, to see what estimates and tests are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ddim_core.scores.distances.frechet import Reference
from ddim_core.statistics.moments import FeatureMoments, Floats

Draw = Callable[[int, int, np.random.Generator], Floats]


@dataclass(frozen=True)
class World:
    """A reference known exactly, and generated features whose distance to it is known.

    Attributes:
        reference: N(0, C_r), C_r diagonal with a lognormal spectrum.
        factor: [d, d]; generated features are its product with noise of unit covariance.
        truth: The distance at infinitely many images.
    """

    reference: Reference
    factor: Floats
    truth: float

    @classmethod
    def of(cls, d: int, difference: float = 0.3, rotated: bool = True, seed: int = 11) -> World:
        """Draws a world; `difference` spreads the log ratio of the two spectra, 0 is equality.

        Not rotated, both covariances share their eigenvectors and the distance is far smaller.
        """
        rng = np.random.default_rng(seed)
        real = np.exp(0.7 * rng.normal(size=d))
        variance = real * np.exp(difference * rng.normal(size=d))
        rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
        factor = (rotation if rotated else np.eye(d)) * np.sqrt(variance)
        # Built from its parts: an infinite reference has no count.
        reference = Reference(np.zeros(d), float(real.sum()), np.diag(np.sqrt(real)))
        exact = FeatureMoments(100 * d, np.zeros(d), factor @ factor.T * (100 * d - 1))
        return cls(reference, factor, reference.distance(exact))

    def draw(self, n: int, rng: np.random.Generator, kind: str = "gauss") -> Floats:
        """Draws [n, d]: Gaussian, `t6` (independent heavy tails) or `ellip` (a common length)."""
        d = len(self.factor)
        if kind == "t6":
            noise = rng.standard_t(6, size=(n, d)) / np.sqrt(1.5)
        else:
            noise = rng.normal(size=(n, d))
        if kind == "ellip":
            noise *= np.sqrt(rng.gamma(10.0, 0.1, size=(n, 1)))
        return noise @ self.factor.T


def mixing(d: int) -> Floats:
    """[d, d]: a rotation of a lognormal spectrum, the same in every draw."""
    rng = np.random.default_rng(11)
    scale = np.exp(0.7 * rng.normal(size=d))
    rotation, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return rotation * np.sqrt(scale)


def gauss(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.normal(size=(n, d)) @ mixing(d).T


def relu(n: int, d: int, rng: np.random.Generator) -> Floats:
    return np.maximum(gauss(n, d, rng) - 0.3, 0.0)


def softmax(n: int, d: int, rng: np.random.Generator) -> Floats:
    odds = np.exp(gauss(n, d, rng))
    return odds / odds.sum(axis=1, keepdims=True) * np.sqrt(d)


def mixture(n: int, d: int, rng: np.random.Generator) -> Floats:
    centres = 1.5 * np.random.default_rng(3).normal(size=(10, d))
    return centres[rng.integers(10, size=n)] + 0.7 * rng.normal(size=(n, d))


def chain(n: int, d: int, rng: np.random.Generator) -> Floats:
    x = rng.normal(size=(n, d))
    for j in range(1, d):
        x[:, j] = 0.8 * x[:, j - 1] + 0.6 * x[:, j]
    return x


def uniform(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.uniform(-1.7, 1.7, size=(n, d))


def t6(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.standard_t(6, size=(n, d)) @ mixing(d).T


def elliptic(n: int, d: int, rng: np.random.Generator) -> Floats:
    return gauss(n, d, rng) * np.sqrt(rng.gamma(10.0, 0.1, size=(n, 1)))


def lognormal(n: int, d: int, rng: np.random.Generator) -> Floats:
    return np.exp(rng.normal(size=(n, d)))


def outliers(n: int, d: int, rng: np.random.Generator) -> Floats:
    """0.6 % of the images have features ten times as large."""
    return gauss(n, d, rng) * np.where(rng.random((n, 1)) < 0.006, 10.0, 1.0)


def strays(n: int, d: int, rng: np.random.Generator) -> Floats:
    """0.6 % of the images are broken in one way."""
    return gauss(n, d, rng) + np.where(rng.random((n, 1)) < 0.006, 15.0, 0.0)


def t3(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.standard_t(3, size=(n, d))


def lengths(n: int, d: int, rng: np.random.Generator) -> Floats:
    """Each image's features have a length of heavy tails."""
    return gauss(n, d, rng) / np.sqrt(rng.chisquare(4, size=(n, 1)) / 4.0)


def sparse(n: int, d: int, rng: np.random.Generator) -> Floats:
    """Few features speak at once, and then loudly."""
    loud = 5.0 * rng.exponential(size=(n, d)) * (rng.random((n, d)) < 0.01)
    return loud + 0.1 * rng.normal(size=(n, d))


def rare(n: int, d: int, rng: np.random.Generator) -> Floats:
    """0.4 % of the images are of a kind of their own."""
    x, own = gauss(n, d, rng), 8.0 * np.sign(mixing(d)[0])
    return np.where(rng.random((n, 1)) < 0.004, 0.1 * x + own, x)


def laplace(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.laplace(size=(n, d)) @ mixing(d).T


def gammas(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.gamma(2.0, size=(n, d))


def binary(n: int, d: int, rng: np.random.Generator) -> Floats:
    return (rng.random((n, d)) < 0.3) * 1.0 + 0.05 * rng.normal(size=(n, d))


def factors(n: int, d: int, rng: np.random.Generator) -> Floats:
    load = np.random.default_rng(5).normal(size=(8, d)) / np.sqrt(8)
    return rng.normal(size=(n, 8)) @ load + 0.3 * rng.normal(size=(n, d))


def t10(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.standard_t(10, size=(n, d)) @ mixing(d).T


def uneven(n: int, d: int, rng: np.random.Generator) -> Floats:
    centres = 1.5 * np.random.default_rng(7).normal(size=(6, d))
    shares = (0.35, 0.25, 0.15, 0.1, 0.09, 0.06)
    return centres[rng.choice(6, size=n, p=shares)] + 0.7 * rng.normal(size=(n, d))


def twoscales(n: int, d: int, rng: np.random.Generator) -> Floats:
    return gauss(n, d, rng) * np.where(rng.random((n, 1)) < 0.15, 2.0, 1.0)


def tanh(n: int, d: int, rng: np.random.Generator) -> Floats:
    return np.tanh(1.5 * gauss(n, d, rng))


def mildly(n: int, d: int, rng: np.random.Generator) -> Floats:
    """Lognormal of half the width."""
    return np.exp(0.5 * rng.normal(size=(n, d)))


def widely(n: int, d: int, rng: np.random.Generator) -> Floats:
    """Lognormal of one and a half times the width."""
    return np.exp(1.5 * rng.normal(size=(n, d)))


def pareto(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.pareto(3.0, size=(n, d))


def weibull(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.weibull(0.5, size=(n, d))


def t4(n: int, d: int, rng: np.random.Generator) -> Floats:
    return rng.standard_t(4, size=(n, d)) @ mixing(d).T


def stretched(n: int, d: int, rng: np.random.Generator) -> Floats:
    """Each image's features have a lognormal length."""
    return gauss(n, d, rng) * np.exp(0.6 * rng.normal(size=(n, 1)))


def loud(n: int, d: int, rng: np.random.Generator) -> Floats:
    """1 % of the images have features five times as large."""
    return gauss(n, d, rng) * np.where(rng.random((n, 1)) < 0.01, 5.0, 1.0)


def blank(n: int, d: int, rng: np.random.Generator) -> Floats:
    """0.5 % of the images are all but one and the same."""
    x = gauss(n, d, rng) + 2.0
    return np.where(rng.random((n, 1)) < 0.005, 0.01 * rng.normal(size=(n, d)) - 6.0, x)


def far(n: int, d: int, rng: np.random.Generator) -> Floats:
    """0.3 % of the images are of another kind."""
    own = 6.0 * np.sign(mixing(d)[1])
    return gauss(n, d, rng) + np.where(rng.random((n, 1)) < 0.003, own, 0.0)


def cubes(n: int, d: int, rng: np.random.Generator) -> Floats:
    return gauss(n, d, rng) ** 3


def modes(p: float, s: float) -> Draw:
    """A share p of the images is of another kind, s away in every feature."""
    return lambda n, d, rng: rng.normal(size=(n, d)) + s * (rng.random((n, 1)) < p)


WORLDS: dict[str, Draw] = {
    draw.__name__: draw
    for draw in (gauss, relu, softmax, mixture, chain, uniform, t6, elliptic, lognormal, outliers,
                 strays, t3, lengths, sparse, rare, laplace, gammas, binary, factors, t10, uneven,
                 twoscales, tanh, mildly, widely, pareto, weibull, t4, stretched, loud, blank, far,
                 cubes)
}  # fmt: skip
WORLDS |= {
    f"p = {p:g}, s = {s:g}": modes(p, s)
    for p, s in ((0.05, 4), (0.1, 4), (0.5, 4), (0.05, 2), (0.2, 2), (0.02, 4), (0.3, 3), (0.1, 1))
}
