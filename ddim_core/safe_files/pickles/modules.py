"""Plain pickles of whole networks, as EDM's and StyleGAN's: read as data, and nothing is called.

`torch_utils.persistence` of NVlabs pickles each object with the source of its module, which its own
reader runs. Here an object is the name of its class, what it was made with, and what it holds; the
source is left. A tensor's storage is bytes, and these are a whole file of an older `torch.save`.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddim_core.common.foreign import Content
from ddim_core.common.plain_files import open_regular
from ddim_core.safe_files.pickles.arrays import STAND_INS, PickledArray
from ddim_core.safe_files.pickles.scan import scan

OF_TORCH_SAVE = b"\x8a\n"  # the first opcode of an older file of torch.save: its magic number
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
DICTS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
MODULES = tuple(f"torch.nn.modules.container.{name}" for name in ("ModuleDict", "ModuleList"))
TENSOR, PARAMETER = "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter"
STORAGE = "torch.storage._load_from_bytes"
NAMES = frozenset({PERSISTENT, *DICTS, *MODULES, TENSOR, PARAMETER, STORAGE})
FORMATS = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "DoubleStorage": torch.float64,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
WRONG = (
    EOFError, LookupError, TypeError, AttributeError, ValueError, RecursionError, OverflowError,
    MemoryError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class PickledObject:
    """An object whose class is not known: what was pickled of it.

    Attributes:
        class_name: The name of its class, without its module.
        made_with: The keywords that it was made with, where they are kept.
        attributes: Its public attributes: numbers, texts, truth values, lists of these.
        weights: Its own parameters and buffers, by name.
        parts: The modules in it, by name.
    """

    class_name: str
    made_with: Content = field(default_factory=dict)
    attributes: Content = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    parts: dict[str, PickledObject] = field(default_factory=dict)

    def state(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Yields its state dict: the weights by their names in the whole."""
        yield from ((prefix + name, weight) for name, weight in self.weights.items())
        for name, part in self.parts.items():
            yield from part.state(f"{prefix}{name}.")


def is_plain_pickle(start: bytes) -> bool:
    """Tells a file of `pickle.dump` from one of `torch.save`, by its first bytes."""
    return start[:1] == b"\x80" and start[2:4] != OF_TORCH_SAVE


def read_plain_pickle(path: Path) -> Content:
    """Returns what the pickle of a mapping holds: tensors, numbers, texts, lists and mappings of
    these by name, a network as its state dict, and under `hparams` each object by its name.

    Raises:
        UnpicklingError: If it asks for a name that no such file needs (with the word GLOBAL before
            it), would make more than the file has, or is no mapping.
        ValueError: If it is cut short or damaged.
    """
    try:
        with open_regular(path) as file:
            scan(file, lambda _key: -1, {*NAMES, *STAND_INS})
            file.seek(0)
            content = _plain(_Reader(file).load())
    except WRONG as error:
        told = str(error).strip() or type(error).__name__
        raise ValueError(f"{path.name} is damaged: {told.splitlines()[0][:200]}") from error
    if not isinstance(content, dict):
        raise pickle.UnpicklingError(f"it holds a {type(content).__name__}, and no mapping")
    objects = {name: item for name, item in content.items() if isinstance(item, PickledObject)}
    states = {name: dict(item.state()) for name, item in objects.items()}
    return {**content, **states, **({"hparams": objects} if objects else {})}


class Made:
    """What a pickle would make by a call: whose, of what, and what is put into it afterwards."""

    called = ""

    def __new__(cls, *arguments: Any) -> Made:
        made = object.__new__(cls)
        made.arguments, made.state, made.entries, made.plain = arguments, None, {}, ()
        return made

    arguments: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]
    plain: tuple[Any, ...]  # what it was found to be, once it was looked at

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value


class _Reader(pickle.Unpickler):
    """Knows the names that such files need, and each as a class of its own that keeps what it is
    given."""

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked in STAND_INS:
            return STAND_INS[asked]
        if asked not in NAMES:
            raise pickle.UnpicklingError(f"it calls GLOBAL {asked} with what it may not")
        return type("Made", (Made,), {"called": asked})


class _StorageReader(pickle.Unpickler):
    """Reads the head of a storage: its names of torch are texts, and what it refers to is told."""

    def find_class(self, module: str, name: str) -> Any:
        if module != "torch" or name not in FORMATS:
            raise pickle.UnpicklingError(f"it calls GLOBAL {module}.{name} with what it may not")
        return name

    def persistent_load(self, identity: Any) -> Any:
        return identity


def _storage(data: Any) -> Tensor:
    """The numbers in an older file of `torch.save` that holds one storage, [n]."""
    if not isinstance(data, bytes):
        raise pickle.UnpicklingError("a storage in it is made of what is no bytes")
    head = io.BytesIO(data)
    for _ in range(5):
        scan(head, lambda _key: len(data), set())
    end = head.tell()
    head.seek(0)
    magic, version, _machine, told, keys = (_StorageReader(head).load() for _ in range(5))
    kind, key, _place, count, *view = told[1:]
    dtype = FORMATS[kind]
    held = int.from_bytes(data[end : end + 8], "little", signed=True)
    right = (magic, version, keys) == (MAGIC, VERSION, [key]) and view in ([], [None])
    if not right or held != count or len(data) - end - 8 != count * dtype.itemsize:
        raise pickle.UnpicklingError(
            f"a storage in it claims {count!r:.20} numbers and has {len(data) - end - 8} bytes"
        )
    if count == 0:
        return torch.zeros(0, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory that is not to be written to
        return torch.frombuffer(data, dtype=dtype, count=count, offset=end + 8)


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    made, offset, size, stride = arguments[:4]
    if not isinstance(made, Made) or made.called != STORAGE or len(made.arguments) != 1:
        raise pickle.UnpicklingError("a tensor in it is made of what is no storage")
    numbers = [offset, *size, *stride]
    if any(type(n) is not int or n < 0 for n in numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError(f"a tensor in it has the shape {size!r:.60}")
    storage = _storage(made.arguments[0])
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return torch.zeros(size, dtype=storage.dtype)
    if last >= len(storage) or math.prod(size) > len(storage):
        raise pickle.UnpicklingError(
            f"a tensor in it claims the shape {size!r:.60}, and has {len(storage)} numbers"
        )
    return torch.as_strided(storage, size, stride, offset)


def _plain(value: Any) -> Any:
    """What was pickled, with tensors and objects in place of the calls that would make them."""
    if isinstance(value, PickledArray):
        return value.numbers.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if not isinstance(value, Made):
        return value if isinstance(value, (bool, int, float, str, type(None))) else None
    if not value.plain:  # what stands in many places is made once
        value.plain = (_made_plain(value),)
    return value.plain[0]


def _made_plain(value: Made) -> Any:
    if value.called == TENSOR:
        return _tensor(value.arguments)
    if value.called == PARAMETER:
        return _plain(value.arguments[0])
    if value.called in DICTS:
        return _plain({**_mapping(value)})
    if value.called == PERSISTENT:
        meta = _mapping(value.arguments[0])
        name = meta.get("class_name")
        if not isinstance(name, str):
            raise pickle.UnpicklingError("an object in it has no class name")
        return _object(name, meta.get("state"))
    if value.called in MODULES:
        return _object(value.called.rpartition(".")[2], value.state)
    return None  # a storage that is no tensor's


def _object(class_name: str, state: Any) -> PickledObject:
    held = _mapping(state)
    # A buffer that is not persistent is no weight: it is made anew.
    passing = held.get("_non_persistent_buffers_set")
    buffers = {**_mapping(held.get("_buffers", {}))}
    for name in passing if isinstance(passing, (set, list, tuple)) else ():
        buffers.pop(name, None)
    weights = _plain({**_mapping(held.get("_parameters", {})), **buffers})
    parts = _plain({**_mapping(held.get("_modules", {}))})
    return PickledObject(
        class_name=class_name,
        made_with={**_unnamed(held.get("_init_args")), **_named(held.get("_init_kwargs"))},
        attributes={
            str(name): _plain(item) for name, item in held.items() if not str(name).startswith("_")
        },
        weights={name: weight for name, weight in weights.items() if isinstance(weight, Tensor)},
        parts={name: part for name, part in parts.items() if isinstance(part, PickledObject)},
    )


def _named(arguments: Any) -> Content:
    return {str(k): _plain(v) for k, v in _mapping(arguments).items()} if arguments else {}


def _unnamed(arguments: Any) -> Content:
    """Arguments without names, by their places."""
    given = arguments if isinstance(arguments, (list, tuple)) else ()
    return {f"argument {i}": _plain(value) for i, value in enumerate(given)}


def _mapping(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Made) and value.called in DICTS:
        pairs = value.arguments[0] if value.arguments else []
        value = {**dict(pairs), **value.entries}
    if not isinstance(value, dict):
        raise pickle.UnpicklingError(f"a {type(value).__name__} stands in it for a mapping")
    return value
