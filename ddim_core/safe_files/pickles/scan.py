"""What a pickle of torch would make, found out without making any of it.

`torch.load(weights_only=True)` runs no code, but it does call what it allows with what the file
says: `bytearray(2**31 - 1)` is thirty bytes, a storage may claim more than the file holds, and
forty shared tuples unfold to 2^40. So a pickle is first gone through by its opcodes alone.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any, BinaryIO

MOST_OPCODES = 2**20
MOST_UNFOLDED = 2**22  # values, with what is shared counted wherever it stands
MOST_NESTED = 200
LARGEST_KEY = 2**61 - 1  # integers that differ by it have one hash: thousands of them take minutes
MARK: Any = object()
ITEM_SIZES = {
    "Double": 8, "Long": 8, "Float": 4, "Int": 4, "Half": 2, "BFloat16": 2, "Short": 2,
    "ComplexFloat": 8, "ComplexDouble": 16, "QInt32": 4,
}  # fmt: skip
REBUILDERS = (
    "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
    "_rebuild_parameter_with_state",
)  # fmt: skip
NUMPY_TYPE = re.compile(r"[<>|=]?[biufc]\d{1,2}")
# Opcodes whose argument is no value: torch.save writes none, and what they do is not followed.
NOT_FOLLOWED = frozenset({"INST", "GET", "PUT", "PERSID", "EXT1", "EXT2", "EXT4"})
# What puts what it is given into a table of hashes.
SETS = ("builtins.set", "collections.Counter")
MAPPINGS = ("collections.OrderedDict", "dnnlib.util.EasyDict")
COPIES = ("_codecs.encode", "builtins.bytearray")
LONG_BYTES = 64  # of which only that they are there is looked at
POP_TWO = {"TUPLE2": 2, "TUPLE3": 3, "TUPLE1": 1}


class Node:
    """A value that the pickle would make of others."""

    def __init__(self, children: list[Any]) -> None:
        self.children = children


class Name(str):
    """A class or function that the pickle asks for, as module.name."""

    __slots__ = ()


def scan(
    file: BinaryIO,
    size_of: Callable[[Any], int],
    extra: set[str],
    most_opcodes: int = MOST_OPCODES,
) -> None:
    """Goes through one pickle, and leaves the file behind it.

    Args:
        file: Positioned where the pickle begins.
        size_of: Bytes that the file holds for a storage, by its key.
        extra: Names that may be called besides, whatever they are given.
        most_opcodes: That it may have.

    Raises:
        UnpicklingError: If it would call something else, or make more than the file holds; the
            message has the word GLOBAL before a name that may not be called.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    letters = copied = 0  # of the texts in it, and of those that calls make bytes of
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > most_opcodes:
            raise pickle.UnpicklingError(f"it has more than {most_opcodes} opcodes")
        name = opcode.name
        letters += len(argument) if isinstance(argument, str) else 0
        if name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name == "GLOBAL":
            stack.append(_name(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            function, module = stack.pop(), stack.pop()
            stack.append(_name(str(module), str(function)))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = stack.pop(), stack.pop()
            _require_harmless(function, arguments, extra)
            if function in COPIES:
                copied += sum(len(c) for c in arguments.children[:1] if isinstance(c, str))
            if copied > letters:
                raise pickle.UnpicklingError("it makes bytes of one text over and over")
            stack.append(Node([arguments]))
        elif name == "BINPERSID":
            _require_held(stack[-1], size_of)
            stack[-1] = Node([stack[-1]])
        elif name == "STOP":
            # No opcode lets go of a value, so with nothing below it the last one holds all.
            top = stack.pop()
            if stack:
                raise pickle.UnpicklingError(f"it leaves {len(stack)} values behind unused")
            _require_small(top)
        else:
            _plain(name, argument, stack)


def _plain(name: str, argument: Any, stack: list[Any]) -> None:
    """The opcodes that move values or put them into containers."""
    if name == "MARK":
        stack.append(MARK)
    elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
        items = _above_mark(stack)
        _require_keys({"DICT": items[::2], "FROZENSET": items}.get(name, []))
        stack.append(Node(items))
    elif name in POP_TWO:
        items = [stack.pop() for _ in range(POP_TWO[name])]
        stack.append(Node(items[::-1]))
    elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
        items = _above_mark(stack)
        _require_keys({"SETITEMS": items[::2], "ADDITEMS": items}.get(name, []))
        stack[-1].children += items
    elif name in ("APPEND", "BUILD"):
        item = stack.pop()
        stack[-1].children.append(item)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        _require_keys([key])
        stack[-1].children += [key, value]
    elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
        stack.append(Node([]))
    elif name not in ("PROTO", "FRAME"):
        values = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
        if name in NOT_FOLLOWED or (name not in values and argument is None):
            raise pickle.UnpicklingError(f"it has the opcode {name}, which torch.save never writes")
        if isinstance(argument, (bytes, bytearray)) and len(argument) > LONG_BYTES:
            argument = argument[:LONG_BYTES]  # and the whole is let go of
        stack.append(values.get(name, argument))


def _name(module: str, name: str) -> Name:
    from torch._utils import IMPORT_MAPPING, NAME_MAPPING  # slow to import

    if (module, name) in NAME_MAPPING:
        module, name = NAME_MAPPING[(module, name)]
    return Name(f"{IMPORT_MAPPING.get(module, module)}.{name}")


def _above_mark(stack: list[Any]) -> list[Any]:
    items: list[Any] = []
    while (item := stack.pop()) is not MARK:
        items.append(item)
    return items[::-1]


def _require_harmless(function: Any, arguments: Any, extra: set[str]) -> None:
    if not isinstance(function, Name) or not isinstance(arguments, Node):
        raise pickle.UnpicklingError("it calls what is no function")
    module, _, name = function.rpartition(".")
    given = arguments.children
    if function in SETS + MAPPINGS:
        held = [item for value in given for item in _inside(value)]
        _require_keys(
            held if function in SETS else [key for pair in held for key in _inside(pair)[:1]]
        )
    fine = function in (
        "torch.Size", "torch.device", "torch.serialization._get_layout", "builtins.complex",
        "torch.nn.parameter.Parameter", "collections.OrderedDict", "collections.Counter",
        "builtins.set", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    )  # fmt: skip
    if function == "numpy.dtype":
        fine = bool(given) and bool(NUMPY_TYPE.fullmatch(str(given[0])))
    elif function == "torch._tensor._rebuild_from_type_v2":
        fine = bool(given) and str(given[0]).removeprefix("torch._utils.") in REBUILDERS
    elif function == "_codecs.encode":
        fine = len(given) == 2 and given[1] in ("latin1", "latin-1", b"latin1", b"latin-1")
    elif function == "builtins.bytearray":
        fine = all(isinstance(item, str) for item in given)
    elif module == "torch._utils":
        fine = name in REBUILDERS
    if not fine and function not in extra:
        raise pickle.UnpicklingError(f"it calls GLOBAL {function} with what it may not")


def _inside(value: Any) -> list[Any]:
    return value.children if isinstance(value, Node) else []


def _require_keys(keys: list[Any]) -> None:
    """Of a mapping, or what is in a set: to hash a key of many values takes as long as it is deep
    and wide, and files of torch have none."""
    for key in keys:
        if isinstance(key, Node):
            raise pickle.UnpicklingError("it has a key that is made of other values")
        if isinstance(key, int) and abs(key) >= LARGEST_KEY:
            raise pickle.UnpicklingError("it has a key that is an absurdly large integer")


def _require_held(identity: Any, size_of: Callable[[Any], int]) -> None:
    """A storage is named by ("storage", its class, its key, its place, its count, ...)."""
    children = identity.children if isinstance(identity, Node) else []
    is_named = len(children) > 4 and isinstance(children[2], (str, bytes))
    if not is_named or not isinstance(children[1], Name):
        raise pickle.UnpicklingError("it refers to something that is no storage")
    kind = children[1].rpartition(".")[2].removesuffix("Storage")
    count, held = children[4], size_of(children[2])
    if not isinstance(count, int) or not 0 <= count * ITEM_SIZES.get(kind, 1) <= held:
        raise pickle.UnpicklingError(
            f"it claims {str(count)[:20]} numbers for a storage of which it holds {held} bytes"
        )


def _require_small(top: Any) -> None:
    """Unfolds what is shared, in numbers alone."""
    found: dict[int, tuple[int, int]] = {}  # values in it, and levels
    waiting: list[tuple[Any, bool]] = [(top, False)]
    open_nodes: set[int] = set()
    while waiting:
        node, is_done = waiting.pop()
        if not isinstance(node, Node) or id(node) in found:
            continue
        if not is_done:
            if id(node) in open_nodes:
                raise pickle.UnpicklingError("it holds itself")
            open_nodes.add(id(node))
            waiting.append((node, True))
            waiting += [(child, False) for child in node.children if isinstance(child, Node)]
            continue
        open_nodes.discard(id(node))
        inside = [found[id(c)] if isinstance(c, Node) else (1, 0) for c in node.children]
        size, depth = 1 + sum(n for n, _ in inside), 1 + max((d for _, d in inside), default=0)
        if size > MOST_UNFOLDED:
            raise pickle.UnpicklingError(f"it unfolds to more than {MOST_UNFOLDED} values")
        if depth > MOST_NESTED:
            raise pickle.UnpicklingError(f"it is nested more than {MOST_NESTED} levels deep")
        found[id(node)] = size, depth
