"""Which samplers can be tuned at all, as far as their names tell; no library is imported for it."""

from __future__ import annotations

from ddim_core.samplers.catalogue import SAMPLERS, SIGMA_HAT
from ddim_core.samplers.name import SamplerName


class NotTunableError(ValueError):
    """A sampler that cannot be told where to ask the network, or draws noise on the way."""


def require_tunable(name: SamplerName) -> None:
    """Makes sure, without a checkpoint, that a sampler follows the ODE and has no list yet.

    Raises:
        NotTunableError: If not.
    """
    known = SAMPLERS.get(name.name)
    if name.name == SIGMA_HAT or (known is not None and (known.noisy or known.order is None)):
        raise NotTunableError(noisy(name.text))
    if name.n_listed or name.sigmas:
        raise NotTunableError(
            f"{name.text} says already where it asks the network; leave the list or rule out"
        )


def noisy(name: str) -> str:
    """Says why a sampler that draws noise cannot be tuned."""
    return (
        f"{name} draws noise on the way, so that the same x_T ends at another image each time and "
        "no distance tells good timesteps from bad ones; take a deterministic one, such as "
        "dpmpp_2m, ddim, heun or flow_euler"
    )
