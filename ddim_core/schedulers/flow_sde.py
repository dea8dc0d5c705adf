"""The reverse SDE of a flow by Euler-Maruyama, as SiT and REPA sample it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ddim_core.common.late import late
from ddim_core.schedulers.configured import Configured

if TYPE_CHECKING:
    from diffusers.utils import torch_utils
else:
    torch_utils = late("diffusers.utils.torch_utils")

Form = Literal["sigma", "constant", "linear", "decreasing", "increasing-decreasing", "SBDM"]
Path = Literal["linear", "gvp", "vp"]
BETA_MIN, BETA_MAX = 0.1, 20.0  # of SiT's vp path


class FlowSDEScheduler(Configured):
    """Steps of a flow's reverse SDE, from noise at sigma = 1 to images at 0.

        x' = x + (sigma' - sigma) (v - w s) + sqrt(2 w (sigma - sigma')) z
        s  = -(r v + x) / var,   z standard normal

    with v the network's velocity (noise less image), s the score that follows from it, and w the
    diffusion, any function of t = 1 - sigma: `sigma` is norm times the noise's part in x (SiT's
    default, REPA's only one), `constant` norm, `linear` norm sigma, `decreasing`
    (norm cos(pi t) + 1)^2 / 4, `increasing-decreasing` norm sin(pi t)^2, and `SBDM` norm times what
    the forward SDE of a diffusion model along the path has, which on the paths `linear` and `gvp`
    is infinite at sigma = 1. The last step, from `last_step_size` to 0, adds no noise.
    Source: Ma et al. 2024 (SiT, arXiv:2401.08740), equation 4 and its transport/path.py and
    integrators.py, where w is half of the paper's; samplers.py of REPA.

    Args:
        num_train_timesteps: A timestep is sigma times this.
        path: On which the network was trained, see `_Place`.
        shift: sigma becomes shift sigma / (1 + (shift - 1) sigma).
        diffusion_form, diffusion_norm: w.
        last_step_size: sigma of the last step.
    """

    order = 1
    init_noise_sigma = 1.0

    def __init__(
        self, num_train_timesteps: int = 1000, shift: float = 1.0, diffusion_form: Form = "sigma",
        diffusion_norm: float = 1.0, last_step_size: float = 0.04, path: Path = "linear",
    ) -> None:  # fmt: skip
        self._keep(
            num_train_timesteps=num_train_timesteps, shift=shift, diffusion_form=diffusion_form,
            diffusion_norm=diffusion_norm, last_step_size=last_step_size, path=path,
        )  # fmt: skip
        self.timesteps, self.sigmas = torch.zeros(0), torch.zeros(1)
        self._done = 0

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: str | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Makes it ready: S levels evenly from 1 to `last_step_size`, or those listed; then 0.

        Without dynamic shifting, which it has not, `mu` plays no part, as in diffusers' own.

        Raises:
            ValueError: If the diffusion is infinite at the first level.
        """
        c = self.config
        if sigmas is None:
            sigma = torch.linspace(1.0, c.last_step_size, num_inference_steps or 1).double()
        else:
            sigma = torch.tensor(list(sigmas), dtype=torch.float64)
        sigma = c.shift * sigma / (1.0 + (c.shift - 1.0) * sigma)
        if c.diffusion_form == "SBDM" and c.path != "vp" and float(sigma[0]) >= 1.0:
            raise ValueError(
                f"diffusion_form SBDM is infinite on the path {c.path} at pure noise; list sigmas "
                "that begin below 1, as sigmas=[0.999,0.75,0.5,0.25,0.04]"
            )
        self.sigmas = torch.cat([sigma, torch.zeros(1, dtype=torch.float64)]).float()
        self.timesteps = (self.sigmas[:-1] * c.num_train_timesteps).to(device)
        self._done = 0

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Makes this step the next one, as pipelines tell it."""
        self._done = begin_index

    def step(
        self,
        model_output: Tensor,
        timestep: Tensor | float,
        sample: Tensor,
        generator: Sequence[torch.Generator] | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """Takes the next step.

        Args:
            model_output: The velocity at `sample` [batch, ...].
            timestep: Where it was asked; steps are taken in order.
            sample: x.
            generator: The images' own streams, one each; the last step draws none.
            return_dict: Of diffusers' schedulers; always False.

        Returns:
            x', alone in a tuple.
        """
        sigma, there = (float(level) for level in self.sigmas[self._done : self._done + 2])
        self._done += 1
        at = _Place.on(self.config.path, 1.0 - sigma)
        score = -(at.ratio * model_output + sample) / at.variance
        w = self._diffusion(at)
        x = sample + (there - sigma) * (model_output - w * score)
        if there > 0.0:
            noise = torch_utils.randn_tensor(
                sample.shape, generator=generator, device=sample.device, dtype=sample.dtype
            )
            x = x + math.sqrt(2.0 * w * (sigma - there)) * noise
        return (x,)

    def _diffusion(self, at: _Place) -> float:
        norm, t = self.config.diffusion_norm, at.t
        forms: dict[Form, Callable[[], float]] = {
            "sigma": lambda: norm * at.noise,
            "constant": lambda: norm,
            "linear": lambda: norm * (1.0 - t),
            "decreasing": lambda: 0.25 * (norm * math.cos(math.pi * t) + 1.0) ** 2,
            "increasing-decreasing": lambda: norm * math.sin(math.pi * t) ** 2,
            "SBDM": lambda: norm * at.variance / at.ratio,
        }
        form: Form = self.config.diffusion_form
        return float(forms[form]())


@dataclass(frozen=True)
class _Place:
    """A time t on a path x = a image + b noise, from noise at 0 to image at 1.

        linear: a = t, b = 1 - t;   gvp: a = sin(pi t / 2), b = cos(pi t / 2)
        vp:     a = exp(-(1-t)^2 (beta_max - beta_min) / 4 - (1-t) beta_min / 2), b^2 = 1 - a^2

    Attributes:
        t: The time.
        noise: b.
        ratio: r = a / a'.
        variance: b^2 - r b' b, which is b, 1 and 1.
    """

    t: float
    noise: float
    ratio: float
    variance: float

    @classmethod
    def on(cls, path: Path, t: float) -> _Place:
        if path == "gvp":
            angle = 0.5 * math.pi * t
            return cls(t, math.cos(angle), 2.0 / math.pi * math.tan(angle), 1.0)
        if path == "vp":
            slope = 0.5 * (1.0 - t) * (BETA_MAX - BETA_MIN) + 0.5 * BETA_MIN
            log = -0.25 * (1.0 - t) ** 2 * (BETA_MAX - BETA_MIN) - 0.5 * (1.0 - t) * BETA_MIN
            return cls(t, math.sqrt(-math.expm1(2.0 * log)), 1.0 / slope, 1.0)
        return cls(t, 1.0 - t, t, 1.0 - t)
