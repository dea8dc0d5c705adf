"""Snapshots of the form that NVlabs' `torch_utils.persistence` pickles, without its source.

Each object is pickled with the text of a module that, if it were run, would end the test.
"""

from __future__ import annotations

import json
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parents[1] / "golden" / "edm.npz"
BUFFERS = ("resample_filter", "freqs", "phases", "u")
PERSISTENCE = "torch_utils.persistence"
SOURCE = "raise SystemExit('the source in a snapshot was run')\n"


class Persistent:
    """Pickles as an object of `torch_utils.persistence`: its class by name, and its state."""

    def __init__(self, class_name: str, state: Mapping[str, Any], source: str = SOURCE) -> None:
        self.meta = {
            "type": "class", "version": 6, "module_src": source, "class_name": class_name,
            "state": dict(state),
        }  # fmt: skip

    def __reduce__(self) -> Any:
        return (
            sys.modules[PERSISTENCE]._reconstruct_persistent_obj,
            (self.meta,),
            None,
        )


@contextmanager
def nvlabs() -> Iterator[None]:
    """Has the modules that such pickles name, for as long as they are written."""
    package, module = types.ModuleType("torch_utils"), types.ModuleType(PERSISTENCE)

    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("nothing in a snapshot is called")

    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    named = {"torch_utils": package, PERSISTENCE: module}
    sys.modules |= named
    try:
        yield
    finally:
        for name in named:
            del sys.modules[name]


def dumped(content: Any) -> bytes:
    with nvlabs():
        return pickle.dumps(content)


def module(class_name: str, state: Mapping[str, Tensor], **more: Any) -> Persistent:
    """A network of these weights; what lies in `enc` and `dec` is in a ModuleDict, as there."""
    parts: OrderedDict[str, Any] = OrderedDict()
    for name in dict.fromkeys(n.partition(".")[0] for n in state if "." in n):
        inside = {n.partition(".")[2]: w for n, w in state.items() if n.startswith(f"{name}.")}
        if name in ("enc", "dec"):
            parts[name] = nn.ModuleDict()
            within = dict.fromkeys(n.partition(".")[0] for n in inside)
            parts[name].__dict__["_modules"] = {
                n: module("Block", {k.partition(".")[2]: w for k, w in inside.items()
                                    if k.startswith(f"{n}.")}) for n in within
            }  # fmt: skip
        else:
            parts[name] = more.pop(f"{name}_", None) or module("Layer", inside)
    own = {n: w for n, w in state.items() if "." not in n}
    held = {
        "training": False,
        "_parameters": OrderedDict(
            (n, nn.Parameter(w, requires_grad=False)) for n, w in own.items() if n not in BUFFERS
        ),
        "_buffers": OrderedDict((n, w) for n, w in own.items() if n in BUFFERS),
        "_non_persistent_buffers_set": set(), "_modules": parts,
        "_backward_hooks": OrderedDict(), "_init_args": (), "_init_kwargs": {}, **more,
    }  # fmt: skip
    return Persistent(class_name, held)


@dataclass(frozen=True)
class Recorded:
    """What NVlabs' code made of one of its networks, by `tests/peers/record_edm.py`."""

    name: str
    meta: dict[str, Any]
    arrays: dict[str, Any]

    @property
    def state(self) -> dict[str, Tensor]:
        draw = np.random.RandomState(self.meta["seed"])
        drawn = {
            name: torch.from_numpy(np.asarray(0.3 * draw.standard_normal(shape), np.float16))
            for name, shape in sorted(self.meta["shapes"].items())
        }
        ordered = {name: drawn[name].float() for name in self.meta["shapes"]}
        return ordered | ({"u": torch.from_numpy(self.arrays["u"])} if "u" in self.arrays else {})

    def net(self, state: Mapping[str, Tensor] | None = None, **made_with: Any) -> Persistent:
        """It, as it is pickled."""
        state = self.state if state is None else state
        part = "model" if any(name.startswith("model.") for name in state) else "unet"
        inside = {n.partition(".")[2]: w for n, w in state.items() if n.startswith(f"{part}.")}
        told = {**self.meta["made_with"], **made_with}
        inner = module(self.meta["inner"], inside, _init_kwargs=told)
        return module(self.meta["class_name"], state, **{f"{part}_": inner}, **self.meta["has"])


def recorded() -> dict[str, Recorded]:
    arrays = np.load(GOLDEN)
    names = sorted({key.partition("/")[0] for key in arrays.files} - {"encoder", "phema"})
    return {
        name: Recorded(
            name,
            json.loads(arrays[f"{name}/meta"].tobytes()),
            {k.partition("/")[2]: arrays[k] for k in arrays.files if k.startswith(f"{name}/")},
        )
        for name in names
    }
