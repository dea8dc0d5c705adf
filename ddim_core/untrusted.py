"""Reading other people's weight files: tensors and plain values come out, and no code ever runs.

What a file is, its first bytes say, not its name. safetensors is read as such. A pickle of torch
is read with `weights_only=True`, where torch builds tensors and containers itself and refuses
every other name; nothing here falls back to a full unpickling.
"""

from __future__ import annotations

import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

HOW_TO_CONVERT = (
    "If you trust it, convert it once, where it was made: load it there with its own code and "
    "write safetensors.torch.save_file(network.state_dict(), 'model.safetensors'), or "
    "torch.save(network.state_dict(), 'model.ckpt')"
)
# What the course's DiffusionModule.save pickles beside its weights: whole modules. Their names
# are read as inert records, which keep attributes and run nothing.
COURSE_CLASSES = (
    "UNet", "TimeEmbedding", "ResBlock", "AttnBlock", "DownSample", "UpSample", "Swish",
    "BaseScheduler", "DDPMScheduler", "DDIMScheduler",
)  # fmt: skip
COURSE_MODULES = ("network", "module", "model", "scheduler", "__main__")
TORCH_CLASSES = (
    "activation.SiLU", "activation.Sigmoid", "container.ModuleList", "container.Sequential",
    "conv.Conv2d", "dropout.Dropout", "linear.Identity", "linear.Linear",
    "normalization.GroupNorm", "sparse.Embedding",
)  # fmt: skip


# Numbers of NumPy, such as a step or a loss beside the weights, by the names of its versions.
SCALARS = frozenset(
    {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
)  # fmt: skip
NUMPY_NAMES = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


class Inert:
    """What stands for a pickled module: its attributes as plain data."""

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise pickle.UnpicklingError(f"the state of a module is a {type(state).__name__}")
        self.__dict__.update({str(name): value for name, value in state.items()})


class ScalarType:
    """What stands for numpy.dtype in a pickle: the name of a plain number's format."""

    def __init__(self, code: str, *_flags: Any) -> None:
        if code not in SCALARS:
            raise pickle.UnpicklingError(f"a number beside the weights is of type {code!r}")
        self.code = code

    def __setstate__(self, state: Any) -> None:
        self.order = state[1] if isinstance(state, tuple) and len(state) > 1 else "|"


def plain_number(kind: Any, data: Any) -> float:
    """What stands for numpy's scalar in a pickle: Python's own number of those bytes."""
    size = int(kind.code[1:]) if isinstance(kind, ScalarType) else -1
    if not isinstance(data, bytes) or len(data) != size or kind.order not in ("<", "|", "="):
        raise pickle.UnpicklingError("a number beside the weights is not whole")
    number: float = np.frombuffer(data, dtype=f"<{kind.code}")[0].item()
    return number


def read_weights(path: Path) -> Any:
    """Returns what a weights file holds: a dict of tensors, or what `torch.save` was given.

    Args:
        path: A safetensors file or a file of `torch.save`, zipped or older, of any name.

    Raises:
        ValueError: If it is neither, is damaged, or is a pickle that asks for more than weights.
    """
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if is_safetensors(path):
            return safetensors.torch.load_file(path)
        if start[:2] == b"PK":
            _check_archive(path)
        elif start[:1] != b"\x80":
            raise ValueError(
                f"{path.name} is neither a safetensors file nor one of torch.save: its first "
                f"bytes are {start[:8]!r}"
            )
        return _load_pickle(path)
    except pickle.UnpicklingError as error:
        raise ValueError(_refusal(path, error)) from error
    except SafetensorError as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error
    except MemoryError as error:
        raise ValueError(f"{path.name} asks for more memory than there is") from error
    except (
        OSError, EOFError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError,
        RecursionError, OverflowError, ArithmeticError, NotImplementedError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path.name} is damaged: {first_line(error)}") from error


def is_safetensors(path: Path) -> bool:
    """Tells a safetensors file by its first bytes: the length of a header, and the header."""
    with path.open("rb") as file:
        return file.read(9)[8:9] == b"{"


def require_tensors(state: Any, where: str) -> dict[str, Tensor]:
    """Makes sure that a state dict has names, and finite tensors on the CPU under them.

    Returns:
        It, with floating-point weights as float32.

    Raises:
        ValueError: If it is not one, or a weight is NaN or infinite.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{where} is no state dict; it must map names to tensors")
    tensors = {}
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise ValueError(f"{where} holds {name!r}, a {type(value).__name__}, among its weights")
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise ValueError(f"{where} holds {name!r}, which is no plain tensor")
        if value.nbytes > value.untyped_storage().nbytes():
            raise ValueError(
                f"{where} claims {value.nbytes} bytes of {name!r} and holds "
                f"{value.untyped_storage().nbytes()}; a few numbers stand for many"
            )
        if value.is_complex():
            raise ValueError(f"{where} holds complex numbers in {name!r}")
        if value.is_floating_point():
            value = value.detach().to(torch.float32)
            if not bool(torch.isfinite(value).all()):
                raise ValueError(
                    f"the weight {name} in {where} is not finite; training diverged or the file "
                    "is damaged"
                )
        tensors[name] = value.detach().contiguous()
    return tensors


def plain_values(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the names and values of whole nested settings, the outer ones first."""
    if isinstance(value, Inert):
        value = vars(value)
    if not isinstance(value, Mapping):
        return
    for name, item in value.items():
        if isinstance(item, (int, float, str, list, tuple)):
            yield str(name), item
    for name, item in value.items():
        if not str(name).startswith("_"):  # a module's insides
            yield from plain_values(item)


def first_line(error: BaseException) -> str:
    """An error's first line, or its kind where it says nothing."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _check_archive(path: Path) -> None:
    """Refuses zip files that are no `torch.save`, are packed (a bomb may be), or are damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            names = [member.filename for member in members]
            if not any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
                raise ValueError(
                    f"{path.name} is an archive and no file of torch.save; unpack it first and "
                    "name the folder or file in it"
                )
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError(f"{path.name} is packed; torch.save never does that")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError(f"{path.name} claims to hold more than it is long")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path.name} is damaged: {first_line(error)}") from error
    if damaged:
        raise ValueError(f"{path.name} is damaged: {damaged} does not have its checksum")


def _load_pickle(path: Path) -> Any:
    inert: list[Any] = [(Inert, f"{m}.{name}") for m in COURSE_MODULES for name in COURSE_CLASSES]
    inert += [(Inert, f"torch.nn.modules.{name}") for name in TORCH_CLASSES]
    inert += [(plain_number, name) for name in NUMPY_NAMES] + [(ScalarType, "numpy.dtype")]
    # An open file, since torch goes by the name of a path.
    with (
        path.open("rb") as file,
        torch.serialization.safe_globals(inert),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of a pickle's protocol, which is refused where it matters
        return torch.load(file, map_location="cpu", weights_only=True)


def _refusal(path: Path, error: BaseException) -> str:
    asked = [line for line in str(error).splitlines() if "GLOBAL" in line]
    if not asked:
        return f"{path.name} is damaged, or a pickle of more than weights. {HOW_TO_CONVERT}"
    name = asked[0].partition("GLOBAL ")[2].split(" ")[0]
    return (
        f"{path.name} is a pickle that asks for {name!r}, more than weights, and could run code: "
        f"it was not read. {HOW_TO_CONVERT}"
    )
