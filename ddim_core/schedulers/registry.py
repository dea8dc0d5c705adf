"""Which class stands behind a scheduler's name."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from ddim_core.common.late import late

if TYPE_CHECKING:
    import diffusers
else:
    diffusers = late("diffusers")

# Classes that diffusers has not: called and configured as its own are, but for `draw`, the whole
# loop, in place of `step`.
OURS = ("EDMHeunScheduler", "FlowODEScheduler", "FlowSDEScheduler")


def require_of_diffusers(kind: str) -> None:
    """Makes sure that diffusers has a scheduler, for what is handed to it.

    Raises:
        ValueError: If it is one of ours.
    """
    if kind in OURS:
        raise ValueError(
            f"the cell is drawn by {kind}, which diffusers has not, and is not shipped; ship "
            "another sampler's cell, such as own"
        )


def scheduler_class(name: str) -> Any:
    """Returns the class of a scheduler, ours or diffusers'; None if there is none of that name."""
    if name in OURS:
        return _ours()[name]
    found = getattr(diffusers.schedulers, name, None)
    return found if inspect.isclass(found) and hasattr(found, "from_config") else None


def _ours() -> dict[str, Any]:
    """By name. Imported by statements, which the keys of cached tasks follow; slow, by torch."""
    from ddim_core.schedulers.edm_heun import EDMHeunScheduler
    from ddim_core.schedulers.flow_ode import FlowODEScheduler
    from ddim_core.schedulers.flow_sde import FlowSDEScheduler

    ours = (EDMHeunScheduler, FlowODEScheduler, FlowSDEScheduler)
    return {kind.__name__: kind for kind in ours}
