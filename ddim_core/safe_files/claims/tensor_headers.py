"""Headers of safetensors files, which are parsed whole: a hundred megabytes take a minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open

from ddim_core.common.plain_files import PlainFileError, open_regular, shown_name

MOST_HEADER = 2**24  # bytes


def tensors_in(path: Path, framework: str = "pt") -> Any:
    """Opens a safetensors file, as `safetensors.safe_open` does, for a `with`.

    Raises:
        PlainFileError: If it is no regular file, or its header is longer than 16 MiB or the file.
        SafetensorError: If it is damaged in another way.
    """
    require_small_header(path)
    return safe_open(path, framework=framework)


def require_small_header(path: Path) -> None:
    """Refuses a header that is larger than its tensors could need; raises as `tensors_in`."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        held = file.seek(0, 2) - 8
    if not length <= min(MOST_HEADER, held):
        raise PlainFileError(
            f"{shown_name(path)} is damaged: its header claims {length} bytes; at most "
            f"{MOST_HEADER}, and no more than the file has"
        )
