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

from torch._utils import IMPORT_MAPPING, NAME_MAPPING

MOST_OPCODES = 2**20
MOST_UNFOLDED = 2**22  # values, with what is shared counted wherever it stands
MOST_NESTED = 200
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
LONG_BYTES = 64  # of which only that they are there is looked at
POP_TWO = {"TUPLE2": 2, "TUPLE3": 3, "TUPLE1": 1}


class Node:
    """A value that the pickle would make of others."""

    def __init__(self, children: list[Any], is_made: bool = False) -> None:
        self.children, self.is_made = children, is_made  # made: by a call, not a literal


class Name(str):
    """A class or function that the pickle asks for, as module.name."""

    __slots__ = ()


def scan(file: BinaryIO, size_of: Callable[[Any], int], extra: set[str]) -> None:
    """Goes through one pickle, and leaves the file behind it.

    Args:
        file: Positioned where the pickle begins.
        size_of: Bytes that the file holds for a storage, by its key.
        extra: Names that may be called besides, whatever they are given.

    Raises:
        UnpicklingError: If it would call something else, or make more than the file holds; the
            message has the word GLOBAL before a name that may not be called.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if count > MOST_OPCODES:
            raise pickle.UnpicklingError(f"it has more than {MOST_OPCODES} opcodes")
        name = opcode.name
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
            stack.append(Node([arguments], is_made=True))
        elif name == "BINPERSID":
            _require_held(stack[-1], size_of)
            stack[-1] = Node([], is_made=True)
        elif name == "STOP":
            _require_small(stack.pop())
        else:
            _plain(name, argument, stack)


def _plain(name: str, argument: Any, stack: list[Any]) -> None:
    """The opcodes that move values or put them into containers."""
    if name == "MARK":
        stack.append(MARK)
    elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
        stack.append(Node(_above_mark(stack)))
    elif name in POP_TWO:
        items = [stack.pop() for _ in range(POP_TWO[name])]
        stack.append(Node(items[::-1]))
    elif name in ("APPENDS", "SETITEMS", "ADDITEMS"):
        items = _above_mark(stack)
        stack[-1].children += items
    elif name in ("APPEND", "BUILD"):
        item = stack.pop()
        stack[-1].children.append(item)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1].children += [key, value]
    elif name in ("EMPTY_TUPLE", "EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"):
        stack.append(Node([]))
    elif name not in ("PROTO", "FRAME"):
        values = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
        if name in NOT_FOLLOWED or (name not in values and argument is None):
            raise pickle.UnpicklingError(f"it has the opcode {name}, which torch.save never writes")
        if isinstance(argument, bytes) and len(argument) > LONG_BYTES:
            argument = argument[:LONG_BYTES]  # and the whole is let go of
        stack.append(values.get(name, argument))


def _name(module: str, name: str) -> Name:
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
    fine = function in extra or function in (
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
        fine = not any(isinstance(item, int) for item in given)
    elif module == "torch._utils":
        fine = name in REBUILDERS
    if not fine:
        raise pickle.UnpicklingError(f"it calls GLOBAL {function} with what it may not")


def _require_held(identity: Any, size_of: Callable[[Any], int]) -> None:
    """A storage is named by ("storage", its class, its key, its place, its count, ...)."""
    children = identity.children if isinstance(identity, Node) else []
    if len(children) < 5 or not isinstance(children[1], Name):
        raise pickle.UnpicklingError("it refers to something that is no storage")
    kind = children[1].rpartition(".")[2].removesuffix("Storage")
    count, held = children[4], size_of(children[2])
    if not isinstance(count, int) or not 0 <= count * ITEM_SIZES.get(kind, 1) <= held:
        raise pickle.UnpicklingError(
            f"it claims {str(count)[:20]} numbers for a storage of which it holds {held} bytes"
        )


def _require_small(top: Any) -> None:
    """Unfolds what is shared, in numbers alone."""
    sizes: dict[int, int] = {}
    waiting: list[tuple[Any, bool]] = [(top, False)]
    open_nodes: set[int] = set()
    while waiting:
        node, is_done = waiting.pop()
        if not isinstance(node, Node) or id(node) in sizes:
            continue
        if is_done:
            open_nodes.discard(id(node))
            inside = [sizes[id(c)] if isinstance(c, Node) else 1 for c in node.children]
            sizes[id(node)] = 1 + sum(inside)
            if sizes[id(node)] > MOST_UNFOLDED:
                raise pickle.UnpicklingError(f"it unfolds to more than {MOST_UNFOLDED} values")
            continue
        if id(node) in open_nodes or len(open_nodes) > MOST_NESTED:
            raise pickle.UnpicklingError("it holds itself, or is nested absurdly deep")
        open_nodes.add(id(node))
        waiting.append((node, True))
        waiting += [(child, False) for child in node.children if isinstance(child, Node)]
