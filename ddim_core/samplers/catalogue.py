"""The samplers that have a name: diffusers' class behind each, and the checkpoints each fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ddim_core.common.checks import nearest
from ddim_core.common.foreign import Config
from ddim_core.common.late import late
from ddim_core.diffusion.scheduler_config import class_defaults
from ddim_core.schedulers.registry import OURS

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

Family = Literal["vp", "flow", "curved", "edm", "ve", "distilled", "other"]
OWN = "own"  # the scheduler that lies in the checkpoint, as it lies there
SIGMA_HAT = "sigma-hat"  # of our own sampler only
FLAGS = {
    "use_karras_sigmas": "karras",
    "use_exponential_sigmas": "exponential",
    "use_beta_sigmas": "beta",
    "use_lu_lambdas": "lu",
}
"""The entries that switch on a rule of sigmas."""
RULES = (*FLAGS.values(), "linear")


@dataclass(frozen=True)
class Sampler:
    """What stands behind a name.

    Attributes:
        kind: The scheduler's class: in diffusers, or one of `ddim_core.schedulers`.
        fits: The families of checkpoints whose networks it can sample, besides those whose own
            scheduler is of its class.
        fixed: Entries of its configuration that the name stands for.
        eta: Whether its step takes eta.
        noisy: Whether it draws noise on the way whatever eta is.
        order: Order of convergence to the ODE's solution; None where it follows an SDE.
    """

    kind: str
    fits: tuple[Family, ...]
    fixed: tuple[tuple[str, Any], ...] = ()
    eta: bool = False
    noisy: bool = False
    order: int | None = 1


VP: tuple[Family, ...] = ("vp",)
BOTH: tuple[Family, ...] = ("vp", "flow")
MULTISTEP, SINGLESTEP = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"


def _dpmpp(order: int, algorithm: str = "dpmsolver++") -> tuple[tuple[str, Any], ...]:
    return (("algorithm_type", algorithm), ("solver_order", order))


SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler("DDIMScheduler", VP, eta=True),
    "ddpm": Sampler("DDPMScheduler", VP, noisy=True, order=None),
    "euler": Sampler("EulerDiscreteScheduler", VP),
    "euler_a": Sampler("EulerAncestralDiscreteScheduler", VP, noisy=True, order=None),
    "heun": Sampler("HeunDiscreteScheduler", VP, order=2),
    "lms": Sampler("LMSDiscreteScheduler", VP, order=4),
    "pndm": Sampler("PNDMScheduler", VP, order=2),
    "kdpm2": Sampler("KDPM2DiscreteScheduler", VP, order=2),
    "kdpm2_a": Sampler("KDPM2AncestralDiscreteScheduler", VP, noisy=True, order=None),
    "deis": Sampler("DEISMultistepScheduler", VP, (("algorithm_type", "deis"),), order=2),
    "dpmpp_2m": Sampler(MULTISTEP, BOTH, _dpmpp(2), order=2),
    "dpmpp_2m_sde": Sampler(MULTISTEP, BOTH, _dpmpp(2, "sde-dpmsolver++"), noisy=True, order=None),
    "dpmpp_2s": Sampler(
        SINGLESTEP, BOTH, (*_dpmpp(2), ("lower_order_final", True)), order=2
    ),  # diffusers itself switches it on where the last sigma is 0
    "dpmpp_3m": Sampler(MULTISTEP, BOTH, _dpmpp(3), order=3),
    "dpmpp_3m_sde": Sampler(MULTISTEP, BOTH, _dpmpp(3, "sde-dpmsolver++"), noisy=True, order=None),
    "unipc": Sampler("UniPCMultistepScheduler", BOTH, order=3),
    "sa_solver": Sampler(
        "SASolverScheduler", VP, (("algorithm_type", "data_prediction"),), noisy=True, order=None
    ),
    "ipndm": Sampler("IPNDMScheduler", ()),
    "lcm": Sampler("LCMScheduler", (), noisy=True, order=None),
    "tcd": Sampler("TCDScheduler", (), eta=True, order=None),
    "flow_euler": Sampler("FlowMatchEulerDiscreteScheduler", ("flow",)),
    "flow_heun": Sampler("FlowMatchHeunDiscreteScheduler", ("flow",), order=2),
    "flow_sde": Sampler("FlowSDEScheduler", ("flow", "curved"), noisy=True, order=None),
    "edm_heun": Sampler("EDMHeunScheduler", ("edm",), order=2),
    "edm_euler": Sampler("EDMEulerScheduler", ("edm",)),
    "edm_dpmpp_2m": Sampler("EDMDPMSolverMultistepScheduler", ("edm",), _dpmpp(2), order=2),
}
REFUSED = {
    "DPMSolverSDEScheduler": "its noise ignores the images' own streams and needs torchsde; "
    "take dpmpp_2m_sde",
    "CosineDPMSolverMultistepScheduler": "its noise ignores the images' own streams and needs "
    "torchsde; take edm_dpmpp_2m",
    "KarrasVeScheduler": "it is an interface of its own that no pipeline of diffusers has any more",
    "DDIMInverseScheduler": "it goes from pictures to noise",
    "DPMSolverMultistepInverseScheduler": "it goes from pictures to noise",
    "RePaintScheduler": "it paints into a given picture",
}
"""Classes of diffusers that draw no image of ours rightly, and why."""
NAMES = (OWN, SIGMA_HAT, *SAMPLERS)


def class_entries(kind: str) -> Mapping[str, Any]:
    """Returns the entries of a scheduler class's configuration with their defaults.

    Raises:
        ValueError: If diffusers has no such scheduler.
    """
    found = class_defaults(kind)
    if found is None:
        names = [*dir(diffusers.schedulers), *OURS]
        known = [name for name in names if name.endswith("Scheduler")]
        raise ValueError(f"diffusers has no scheduler {kind!r}{nearest(kind, known)}")
    return found


def named_for(kind: str, options: Mapping[str, Any]) -> tuple[str, Config]:
    """Returns the short name of a class with options, and the options that the name leaves: that
    of the most entries fixed; the class itself where no name stands for it."""
    fitting = [
        (len(sampler.fixed), name)
        for name, sampler in SAMPLERS.items()
        if sampler.kind == kind and all(options.get(k, ...) == v for k, v in sampler.fixed)
    ]
    if not fitting:
        return kind, dict(options)
    name = max(fitting)[1]
    taken = dict(SAMPLERS[name].fixed)
    return name, {key: value for key, value in options.items() if key not in taken}
