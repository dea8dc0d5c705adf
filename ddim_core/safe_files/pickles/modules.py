"""Plain pickles of whole networks, as EDM's and StyleGAN's: read as data, and nothing is called.

`torch_utils.persistence` of NVlabs pickles each object with the source of its module, which its own
reader runs. Here an object is the name of its class, what it was made with, and what it holds; the
source is left. A tensor's storage is bytes, and these are a whole file of an older `torch.save`.
"""

from __future__ import annotations

import io
import math
import pickle
import reprlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from ddim_core.common.foreign import Content
from ddim_core.common.plain_files import open_regular
from ddim_core.safe_files.pickles.arrays import STAND_INS, PickledArray
from ddim_core.safe_files.pickles.scan import LARGEST_KEY, scan

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
MOST_HEAD = 1024  # bytes before the numbers of a storage
MOST_HEAD_OPCODES = 64  # of each of the five pickles in it
MOST_LISTED = 2**20  # numbers of arrays that are no weights, and lists that they lie in
MOST_LETTERS = 1024  # of a name in one mapping
MOST_NAMES = 2**24  # letters of the names of one network's weights
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
            content = _Plain()(_Reader(file).load())
            _require_short_names(content)
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
        made.arguments, made.state, made.entries, made.numbers = arguments, None, {}, None
        return made

    arguments: tuple[Any, ...]
    state: Any
    entries: dict[Any, Any]
    numbers: Tensor | None  # of a storage, once it was looked at

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.entries[key] = value


class _Reader(pickle.Unpickler):
    """Knows the names that such files need, and each as a class of its own that keeps what it is
    given."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[int, Made] = {}

    def find_class(self, module: str, name: str) -> Any:
        asked = f"{module}.{name}"
        if asked in STAND_INS:
            return STAND_INS[asked]
        if asked not in NAMES:
            raise pickle.UnpicklingError(f"it calls GLOBAL {asked} with what it may not")
        kind = type("Made", (Made,), {"called": asked})
        # What is made of the same bytes is one storage, which keeps them.
        return partial(self._storage, kind) if asked == STORAGE else kind

    def _storage(self, kind: type[Made], data: Any) -> Made:
        return self.storages.setdefault(id(data), kind(data))


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
    head = io.BytesIO(data[:MOST_HEAD])
    for _ in range(5):
        scan(head, lambda _key: len(data), set(), MOST_HEAD_OPCODES)
    end = head.tell()
    head.seek(0)
    magic, version, _machine, told, keys = (_StorageReader(head).load() for _ in range(5))
    kind, key, _place, count, *view = told[1:]
    dtype = FORMATS[kind]
    held = int.from_bytes(data[end : end + 8], "little", signed=True)
    right = (magic, version, keys) == (MAGIC, VERSION, [key]) and view in ([], [None])
    if not right or held != count or len(data) - end - 8 != count * dtype.itemsize:
        raise pickle.UnpicklingError(
            f"a storage in it claims {reprlib.repr(count)} numbers and has "
            f"{len(data) - end - 8} bytes"
        )
    if count == 0:
        return torch.zeros(0, dtype=dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of memory that is not to be written to
        return torch.frombuffer(data, dtype=dtype, count=count, offset=end + 8)


def _tensor(arguments: tuple[Any, ...]) -> Tensor:
    made, offset, size, stride = arguments[:4]
    if not isinstance(made, Made) or made.called != STORAGE:
        raise pickle.UnpicklingError("a tensor in it is made of what is no storage")
    numbers = [offset, *size, *stride]
    if any(type(n) is not int or n < 0 for n in numbers) or len(size) != len(stride):
        raise pickle.UnpicklingError(f"a tensor in it has the shape {reprlib.repr(size)}")
    if made.numbers is None:
        made.numbers = _storage(made.arguments[0])
    storage = made.numbers
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return torch.zeros(size, dtype=storage.dtype)
    if last >= len(storage) or math.prod(size) > len(storage):
        raise pickle.UnpicklingError(
            f"a tensor in it claims the shape {reprlib.repr(size)}, and has {len(storage)} numbers"
        )
    return torch.as_strided(storage, size, stride, offset)


class _Plain:
    """Gives what was pickled, with tensors and objects in place of the calls that would make them.
    What stands in many places is made once."""

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Any, Any]] = {}  # by identity: what was pickled, which it keeps
        self.listed = 0

    def __call__(self, value: Any) -> Any:
        if isinstance(value, (bool, int, float, str, type(None))):
            return value
        if id(value) not in self.seen:
            self.seen[id(value)] = (value, self._made(value))
        return self.seen[id(value)][1]

    def _made(self, value: Any) -> Any:
        if isinstance(value, PickledArray):
            return self._listed(value)
        if isinstance(value, (list, tuple)):
            return [self(item) for item in value]
        if isinstance(value, dict):
            return self._named(value)
        if not isinstance(value, Made) or value.called == STORAGE:  # of no tensor
            return None
        if value.called == TENSOR:
            return _tensor(value.arguments)
        if value.called == PARAMETER:
            return self(value.arguments[0])
        if value.called in DICTS:
            return self._named(_mapping(value))
        if value.called in MODULES:
            return self._object(value.called.rpartition(".")[2], value.state)
        meta = _mapping(value.arguments[0])
        name = meta.get("class_name")
        if not isinstance(name, str):
            raise pickle.UnpicklingError("an object in it has no class name")
        return self._object(name, meta.get("state"))

    def _listed(self, array: PickledArray) -> Any:
        lists = 1
        for side in array.numbers.shape:
            lists *= max(side, 1)
            self.listed += lists
        if self.listed > MOST_LISTED:
            raise pickle.UnpicklingError(
                f"it holds arrays of more than {MOST_LISTED} numbers beside its weights"
            )
        return array.numbers.tolist()

    def _named(self, mapping: Mapping[Any, Any]) -> Content:
        return {str(_key(name)): self(item) for name, item in mapping.items()}

    def _object(self, class_name: str, state: Any) -> PickledObject:
        held = _mapping(state)
        # A buffer that is not persistent is no weight: it is made anew.
        passing = held.get("_non_persistent_buffers_set")
        buffers = {**_mapping(held.get("_buffers", {}))}
        for name in passing if isinstance(passing, (set, list, tuple)) else ():
            buffers.pop(_key(name), None)
        weights = self._named({**_mapping(held.get("_parameters", {})), **buffers})
        parts = self._named(_mapping(held.get("_modules", {})))
        given, named = held.get("_init_args"), held.get("_init_kwargs")
        places = given if isinstance(given, (list, tuple)) else ()
        return PickledObject(
            class_name=class_name,
            made_with={
                **{f"argument {i}": self(value) for i, value in enumerate(places)},
                **(self._named(_mapping(named)) if named else {}),
            },
            attributes=self._named(
                {name: item for name, item in held.items() if not str(_key(name)).startswith("_")}
            ),
            weights={
                name: weight for name, weight in weights.items() if isinstance(weight, Tensor)
            },
            parts={name: part for name, part in parts.items() if isinstance(part, PickledObject)},
        )


def _mapping(value: Any) -> Mapping[Any, Any]:
    if isinstance(value, Made) and value.called in DICTS:
        given = value.arguments[0] if value.arguments else ()
        pairs = given.items() if isinstance(given, dict) else given
        value = {**{_key(name): item for name, item in pairs}, **value.entries}
    if not isinstance(value, dict):
        raise pickle.UnpicklingError(f"a {type(value).__name__} stands in it for a mapping")
    return value


def _key(name: Any) -> Any:
    is_text = isinstance(name, str) and len(name) <= MOST_LETTERS
    if not is_text and not (isinstance(name, int) and abs(name) < LARGEST_KEY):
        raise pickle.UnpicklingError(
            f"it holds {reprlib.repr(name)} where a name must be, or a whole number"
        )
    return name


def _require_short_names(content: Any) -> None:
    for item in content.values() if isinstance(content, dict) else ():
        letters = 0
        for name, _ in item.state() if isinstance(item, PickledObject) else ():
            letters += len(name)
            if letters > MOST_NAMES:
                raise pickle.UnpicklingError(
                    f"the names of a network's weights in it have more than {MOST_NAMES} letters"
                )
