"""The one spelling of a sampler for a checkpoint: without what would be so without being said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ddim_core.common.foreign import Config
from ddim_core.samplers.catalogue import OWN, SAMPLERS, SIGMA_HAT, class_entries
from ddim_core.samplers.fits import class_behind
from ddim_core.samplers.name import SamplerName
from ddim_core.samplers.scheduler import entries_of


def canonical(name: SamplerName, own: Mapping[str, Any]) -> SamplerName:
    """Returns the shortest name of the same setting for a checkpoint.

    What the checkpoint's own configuration carries over, or the class takes by itself, need not be
    said: `unipc?solver_order=2` is `unipc`, and `euler?steps_offset=1` is `euler` where the
    checkpoint's file says 1. A class is called by the name that stands for it.

    Args:
        name: The sampler.
        own: The checkpoint's scheduler_config.json, with its `_class_name`.

    Raises:
        ValueError: If there is no such class, or the sampler is of the native path alone.
    """
    if name.name == SIGMA_HAT:
        return name
    meant = _settled(name, own)
    if name.sigmas and _settled(replace(name, sigmas=None), own) == meant:
        name = replace(name, sigmas=None)
    for option in name.options:
        without = replace(name, options=tuple(o for o in name.options if o != option))
        if _settled(without, own) == meant:
            name = without
    return next((n for n in _named(name) if _settled(n, own) == meant), name)


def is_own(name: SamplerName, own: Mapping[str, Any]) -> bool:
    """Tells whether a sampler is the checkpoint's own by another name; raises as `canonical`."""
    return _settled(name, own) == _settled(SamplerName(OWN), own)


def _settled(name: SamplerName, own: Mapping[str, Any]) -> Config:
    return {**class_entries(class_behind(name, own)), **entries_of(name, own)}


def _named(name: SamplerName) -> Iterator[SamplerName]:
    """The names that stand for a class, with the options that it has; the one that fixes most
    first."""
    if name.name in SAMPLERS or name.name == OWN:
        return
    of_class = [(n, s) for n, s in SAMPLERS.items() if s.kind == name.name]
    for short, sampler in sorted(of_class, key=lambda pair: -len(pair[1].fixed)):
        fixed = dict(sampler.fixed)
        yield replace(name, name=short, options=tuple(o for o in name.options if o[0] not in fixed))
