"""Pickles of plain arrays, such as EDM2's statistics: read without running any name of them."""

from __future__ import annotations

import io
import math
import pickle
import re
import reprlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ddim_core.common.foreign import Content
from ddim_core.common.plain_files import open_regular
from ddim_core.safe_files.pickles.scan import scan

MOST_BYTES = 2**31  # of a file
MOST_ENTRIES = 1000  # of one mapping
MOST_SIDES = 8  # of one array
CODE = re.compile(r"[<=|]?[fiu][1248]")
_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric",
          "numpy._core.numeric")  # fmt: skip


class _Type:
    """What stands for numpy's dtype: its code, as `<f8`."""

    def __init__(self, code: Any = "", *_flags: Any) -> None:
        self.code, self.order = code, "="

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else "?"

    def plain(self) -> np.dtype[Any]:
        told = f"{self.order}{self.code}" if self.order in ("<", "|") else str(self.code)
        if not isinstance(self.code, str) or self.order not in "<=|" or not CODE.fullmatch(told):
            raise pickle.UnpicklingError(f"it holds numbers of the type {reprlib.repr(self.code)}")
        return np.dtype(told)


class PickledArray:
    """What stands for numpy's ndarray until its numbers are known."""

    def __init__(self, *_empty: Any) -> None:
        self.numbers: NDArray[Any] = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise pickle.UnpicklingError("an array in it is not whole")
        _version, shape, kind, by_columns, data = state
        self.numbers = _numbers(data, kind, shape, "F" if by_columns else "C")


def read_array_pickle(path: Path) -> Content:
    """Reads a pickled dict of names, numbers, texts, arrays and further such dicts.

    The names that numpy's own pickles call (ndarray, dtype, scalar) are ours here, which take bytes
    and make numbers of them; every other name is refused. So nothing of the file runs.

    Args:
        path: The file, of at most 2 GiB.

    Raises:
        ValueError: If it is no such pickle, or holds something else.
    """
    with open_regular(path) as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise ValueError(f"{path.name} has more than {MOST_BYTES} bytes")
    try:
        scan(io.BytesIO(data), lambda _key: -1, set(STAND_INS))
        return _settled(_Reader(io.BytesIO(data)).load(), 0)
    except (
        pickle.UnpicklingError, EOFError, LookupError, TypeError, AttributeError, ValueError,
        RecursionError, OverflowError, MemoryError,
    ) as error:  # fmt: skip
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path.name} is no pickle of plain arrays: {reason}") from error


class _Reader(pickle.Unpickler):
    """Knows numpy's names alone, and these as our own."""

    def find_class(self, module: str, name: str) -> Any:
        known = STAND_INS.get(f"{module}.{name}")
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no statistics need")
        return known


def _numbers(data: Any, kind: Any, shape: Any, order: Any) -> NDArray[Any]:
    if not isinstance(kind, _Type) or not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array in it holds something else than numbers")
    sides = shape if isinstance(shape, tuple) else (shape,)
    plain = kind.plain()
    if len(sides) > MOST_SIDES:
        raise pickle.UnpicklingError(
            f"an array in it has {len(sides)} dimensions; at most {MOST_SIDES} may be"
        )
    if any(type(side) is not int or side < 0 for side in sides) or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array in it has the shape {reprlib.repr(shape)}")
    if math.prod(sides) * plain.itemsize != len(data):
        raise pickle.UnpicklingError(f"an array of {sides} in it has {len(data)} bytes")
    return np.frombuffer(data, plain).reshape(sides, order="F" if order == "F" else "C")


def _from_buffer(data: Any, kind: Any, shape: Any, order: Any) -> PickledArray:
    made = PickledArray()
    made.numbers = _numbers(data, kind, shape, order)
    return made


def _scalar(kind: Any, data: Any) -> Any:
    return _numbers(data, kind, (), "C").item()


def _encoded(text: Any, coding: Any) -> bytes:
    """How older pickles write bytes."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("it encodes what is no text of bytes")
    return text.encode("latin1")


STAND_INS: dict[str, Any] = {
    **{
        f"{module}.{name}": ours
        for module in _NUMPY
        for name, ours in (
            ("_reconstruct", PickledArray), ("ndarray", PickledArray), ("dtype", _Type),
            ("scalar", _scalar), ("_frombuffer", _from_buffer),
        )
    },
    "_codecs.encode": _encoded,
}  # fmt: skip
"""What stands for the names that numpy's own pickles call."""


def _settled(value: Any, depth: int) -> Content:
    if type(value) is not dict or len(value) > MOST_ENTRIES or depth > 2:
        raise pickle.UnpicklingError("it must hold names with arrays, at most three levels deep")
    made: Content = {}
    for name, item in value.items():
        if not isinstance(name, str):
            raise pickle.UnpicklingError(f"it holds {reprlib.repr(name)} where a name must be")
        if isinstance(item, dict):
            made[name] = _settled(item, depth + 1)
        elif isinstance(item, PickledArray):
            made[name] = item.numbers
        elif item is None or isinstance(item, (int, float, str)):
            made[name] = item
        else:
            raise pickle.UnpicklingError(f"{name} is a {type(item).__name__}")
    return made
