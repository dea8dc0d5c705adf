"""Reading other people's weight files: tensors and plain values come out, and no code ever runs.

What a file is, its first bytes say, not its name. safetensors is read as such. A pickle of torch
is read with `weights_only=True`, where torch builds tensors and containers itself and refuses
every other name; nothing here falls back to a full unpickling.
"""

from __future__ import annotations

import io
import pickle
import struct
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

from ddim_core.common.plain_files import PlainFileError, open_regular
from ddim_core.safe_files.claims.tensor_headers import MOST_HEADER, require_small_header
from ddim_core.safe_files.pickles.modules import is_plain_pickle, read_plain_pickle
from ddim_core.safe_files.pickles.scan import scan

HOW_TO_CONVERT = (
    "If you trust it, convert it once, where it was made: load it there with its own code and "
    "write safetensors.torch.save_file(network.state_dict(), 'model.safetensors'), or "
    "torch.save(network.state_dict(), 'model.ckpt')"
)
N_OLD_PICKLES = 5
PICKLE = "data.pkl"  # of an archive, below the folder that all of it lies in
ENDS = (56, 20, 22)  # bytes of a zip file's last records: two of a long one, and the last
MOST_TIED = 4  # names of one weight
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
ARGUMENTS = "argparse.Namespace"  # what a training was called with, as DiT and SiT save it

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
        path: A safetensors file, a file of `torch.save`, zipped or older, or one of `pickle.dump`.

    Raises:
        ValueError: If it is neither, is damaged, or is a pickle that asks for more than weights.
    """
    with open_regular(path) as file:
        start = file.read(9)
    try:
        if is_safetensors(path):
            require_small_header(path)
            return safetensors.torch.load_file(path)
        if is_plain_pickle(start):
            return read_plain_pickle(path)
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
    except PlainFileError:
        raise
    except (
        OSError, EOFError, LookupError, TypeError, AttributeError, RuntimeError, AssertionError,
        RecursionError, OverflowError, ArithmeticError, NotImplementedError,
    ) as error:  # fmt: skip
        raise ValueError(f"{path.name} is damaged: {first_line(error)}") from error


def is_safetensors(path: Path) -> bool:
    """Tells a safetensors file by its first bytes: the length of a header, and the header."""
    with open_regular(path) as file:
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
    _require_own_memory(state, where)
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


def _require_own_memory(state: Mapping[Any, Any], where: str) -> None:
    """Makes sure that weights are not a few numbers many times over; two may be tied, or four."""
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    plain = [t for t in tensors if t.layout == torch.strided and not t.is_meta]
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in plain}
    claimed, has = sum(t.nbytes for t in plain), sum(held.values())
    if claimed > MOST_TIED * has + MOST_HEADER:
        raise ValueError(
            f"{where} claims {claimed} bytes of weights and holds {has}; a few numbers stand for "
            "many"
        )


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
    _require_one_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _require_one_pickle(path, members)
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError(f"{path.name} is packed; torch.save never does that")
            if sum(member.file_size for member in members) > path.stat().st_size:
                raise ValueError(f"{path.name} claims to hold more than it is long")
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError) as error:
        raise ValueError(f"{path.name} is damaged: {first_line(error)}") from error
    if damaged:
        raise ValueError(f"{path.name} is damaged: {damaged} does not have its checksum")


def _require_one_pickle(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuses archives of which torch could read another pickle than we look at: it takes data.pkl
    in the folder of the first entry, whatever the case of its letters, of two the first or last."""
    names = [member.orig_filename for member in members]
    if not any(name.lower().endswith("data.pkl") for name in names):
        raise ValueError(
            f"{path.name} is an archive and no file of torch.save; unpack it first and "
            "name the folder or file in it"
        )
    seen: set[str] = set()
    for name in names:
        if name.lower() in seen:
            raise ValueError(f"{path.name} holds {name!r:.100} twice; torch.save never does that")
        if "\0" in name or "\\" in name:
            raise ValueError(f"{path.name} has an entry {name!r:.100}, as torch.save never does")
        seen.add(name.lower())
    wanted = f"{names[0].partition('/')[0]}/{PICKLE}"
    pickles = [name for name in names if name.lower().rpartition("/")[2] == PICKLE]
    if pickles != [wanted]:
        raise ValueError(
            f"{path.name} holds {', '.join(pickles)[:200]}; a file of torch.save holds {wanted} "
            "alone"
        )


def _require_one_directory(path: Path) -> None:
    """Refuses zip files whose table of contents could be looked for in two places: it must lie
    where the file's last bytes say, and right before them."""
    with open_regular(path) as file:
        length = file.seek(0, io.SEEK_END)
        file.seek(max(0, length - sum(ENDS)))
        end = file.read()
    wide, pointer, last = (end[a:b] for a, b in ((-98, -42), (-42, -22), (-22, None)))
    at, size, offset = length - ENDS[2], 0, 0
    if last[:4] == b"PK\5\6":
        size, offset = struct.unpack("<II", last[12:20])
    if pointer[:4] == b"PK\6\7" and len(wide) == ENDS[0] and wide[:4] == b"PK\6\6":
        at, short = length - sum(ENDS), (size, offset)
        size, offset = struct.unpack("<QQ", wide[40:56])
        agree = all(a in (b, 2**32 - 1) for a, b in zip(short, (size, offset), strict=True))
        if struct.unpack("<Q", pointer[8:16])[0] != at or not agree:
            offset = -1
    if last[20:] != b"\0\0" or offset + size != at:
        raise ValueError(
            f"{path.name} is damaged: its table of contents does not lie right before its end, "
            "where torch.save writes it"
        )


def _scan_pickles(path: Path, extra: set[str]) -> None:
    """Goes through the opcodes of a file's pickle; see `pickle_scan`."""
    with open_regular(path) as file:
        if file.read(2) == b"PK":
            with zipfile.ZipFile(file) as archive:
                sizes = {member.filename: member.file_size for member in archive.infolist()}
                name = next(n for n in sizes if n.endswith(f"/{PICKLE}"))
                if sizes[name] > MOST_HEADER:
                    raise ValueError(f"{path.name} has a pickle of {sizes[name]} bytes; absurd")
                prefix = name.removesuffix(PICKLE) + "data/"
                scan(
                    io.BytesIO(archive.read(name)),
                    lambda key: sizes.get(prefix + _text(key), -1),
                    extra,
                )
            return
        # The older form: a magic number, a version, the machine, the object, the storages' keys.
        file.seek(0)
        length = path.stat().st_size
        for _ in range(N_OLD_PICKLES):
            scan(file, lambda _key: length, extra)


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)


def _load_pickle(path: Path) -> Any:
    inert: list[Any] = [(Inert, f"{m}.{name}") for m in COURSE_MODULES for name in COURSE_CLASSES]
    inert += [(Inert, f"torch.nn.modules.{name}") for name in TORCH_CLASSES] + [(Inert, ARGUMENTS)]
    inert += [(plain_number, name) for name in NUMPY_NAMES] + [(ScalarType, "numpy.dtype")]
    try:
        _scan_pickles(path, {name for _, name in inert})
    except ValueError as error:  # of an opcode whose argument is not whole
        raise ValueError(f"{path.name} is damaged: {first_line(error)}") from error
    # An open file, since torch goes by the name of a path.
    with (
        open_regular(path) as file,
        torch.serialization.safe_globals(inert),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # of a pickle's protocol, which is refused where it matters
        return torch.load(file, map_location="cpu", weights_only=True)


def _torchs_reason(error: BaseException) -> str:
    """What torch found, without its advice to load the file with code and all."""
    _, marked, found = str(error).rpartition("WeightsUnpickler error: ")
    told = found.strip().splitlines()[:1] if marked else [first_line(error)]
    reason = told[0][:200] if told else ""
    advises = any(word in reason for word in ("weights_only", "torch.load", "safe_globals"))
    return "it holds what is no weights" if advises or not reason else reason


def _refusal(path: Path, error: BaseException) -> str:
    asked = [line for line in str(error).splitlines() if "GLOBAL" in line]
    if not asked:
        reason = _torchs_reason(error)
        return (
            f"{path.name} is damaged, or a pickle of more than weights ({reason}). {HOW_TO_CONVERT}"
        )
    name = asked[0].partition("GLOBAL ")[2].split(" ")[0]
    return (
        f"{path.name} is a pickle that asks for {name!r}, more than weights, and could run code: "
        f"it was not read. {HOW_TO_CONVERT}"
    )
