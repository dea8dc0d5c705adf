"""What NumPy's arrays say of themselves, read before NumPy reads them: it would take a header of
any length whole, and evaluate it.
"""

from __future__ import annotations

import ast
import math
import re
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

MAGIC = b"\x93NUMPY"
LENGTHS = {(1, 0): 2, (2, 0): 4, (3, 0): 4}  # bytes that tell a header's length, by version
ENTRIES = {"descr", "fortran_order", "shape"}
MOST_HEADER = 2**16  # bytes; NumPy's own have hundreds
MOST_AXES = 32
LEAST_LIMIT, MOST_UNPACKED = 2**25, 100  # bytes, and times the packed length
MOST_BYTES = 2**36
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # NumPy writes no other
ENCRYPTED = 1  # a zip entry's flag
OLD_LONG = re.compile(r"\b(\d+)L\b")  # a whole number of Python 2


@dataclass(frozen=True)
class Header:
    """What an array says of itself before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def require_plain_entry(entry: zipfile.ZipInfo) -> None:
    """Makes sure of an array in an archive before a byte of it is unpacked.

    Raises:
        ValueError: If it is encrypted, or unpacks by another method than NumPy's or to absurdly
            many bytes.
    """
    if entry.flag_bits & ENCRYPTED:
        raise ValueError("it is encrypted")
    if entry.compress_type not in METHODS:
        raise ValueError("it is packed by another method than deflate")
    if entry.file_size > min(MOST_BYTES, max(LEAST_LIMIT, MOST_UNPACKED * entry.compress_size)):
        raise ValueError(
            f"it unpacks to {entry.file_size} bytes from {entry.compress_size}; that is too many"
        )


def read_header(file: IO[bytes], length: int) -> tuple[Header, int]:
    """Returns the header of an array, and where its values begin.

    Args:
        file: Positioned where the array begins.
        length: Bytes that the file has from there.

    Raises:
        ValueError: If it is none, is longer than a header can be, or describes no array.
    """
    start = file.read(len(MAGIC) + 2)
    version = (start[-2], start[-1]) if len(start) == len(MAGIC) + 2 else (0, 0)
    if not start.startswith(MAGIC) or version not in LENGTHS:
        raise ValueError(f"it begins with {start!r}, not as an array of NumPy does")
    size = int.from_bytes(file.read(LENGTHS[version]), "little")
    begin = len(start) + LENGTHS[version]
    if size > MOST_HEADER:
        raise ValueError(f"it has a header of {size} bytes; at most {MOST_HEADER} are read")
    if size > length - begin:
        raise ValueError(f"it has a header of {size} bytes; there are {max(0, length - begin)}")
    text = file.read(size).decode("utf-8" if version == (3, 0) else "latin-1")
    return _described(text, is_old=version != (3, 0)), begin + size


def require_length(header: Header, there: int) -> None:
    """Makes sure that as many bytes are there as an array claims.

    Raises:
        ValueError: If there are fewer.
    """
    claimed = math.prod(header.shape) * header.dtype.itemsize
    if not header.dtype.hasobject and claimed > there:
        raise ValueError(
            f"it claims {claimed} bytes ({header.dtype} {list(header.shape)}); there are {there}"
        )


def _described(text: str, is_old: bool) -> Header:
    try:
        told = ast.literal_eval((OLD_LONG.sub(r"\1", text) if is_old else text).strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError("its header is no description of an array") from error
    if not isinstance(told, dict) or set(told) != ENTRIES:
        raise ValueError("its header has not the entries descr, fortran_order and shape alone")
    shape = told["shape"]
    if (
        not isinstance(shape, tuple)
        or len(shape) > MOST_AXES
        or any(type(n) is not int or n < 0 for n in shape)
    ):
        raise ValueError(f"its shape is {str(shape)[:80]}; it must be whole numbers of at least 0")
    if type(told["fortran_order"]) is not bool:
        raise ValueError(
            f"its fortran_order is {str(told['fortran_order'])[:80]}; it must be True or False"
        )
    try:
        return Header(shape, np.lib.format.descr_to_dtype(told["descr"]))
    except Exception as error:  # a description can be wrong in every way
        raise ValueError(f"its type is {str(told['descr'])[:80]!r}, which is none") from error
