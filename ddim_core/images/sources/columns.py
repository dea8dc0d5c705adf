"""Which column of a table holds its images, its labels and its captions, by name and type; and what
is told of one that has the name and not the type.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from ddim_core.common.printable import printable
from ddim_core.images.sources.captions import CAPTION_KEYS, LONGEST

IMAGES = ("image", "img")
LABELS = ("label", "labels", "fine_label")
NAMED = 12  # columns of a table in a message


def image_column(schema: pa.Schema, where: str) -> str:
    """Returns the column of images: of bytes, or of structs with the field bytes.

    Raises:
        ValueError: If there is none, or are several of which none is called image or img.
    """
    found = [field.name for field in schema if _holds_images(field.type)]
    named = [name for name in found if name in IMAGES]
    if len(found) != 1 and len(named) != 1:
        told = [f"{printable(field.name)} ({_short(field.type)})" for field in schema]
        more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        raise ValueError(
            f"{where} has {len(found)} image columns among {', '.join(told[:NAMED])}{more}; it "
            "must have one, of plain bytes or of structs with the field bytes"
        )
    return str(named[0] if len(named) == 1 else found[0])


def label_column(schema: pa.Schema) -> str | None:
    """Returns the column of labels, whole numbers or texts; None if there is none."""
    fitting = {field.name for field in schema if _is_label(field.type)}
    return next((name for name in LABELS if name in fitting), None)


def caption_columns(schema: pa.Schema) -> list[str]:
    """Returns the columns of captions, the first of which counts where it is not null."""
    fitting = {field.name for field in schema if _is_text(field.type)}
    return [name for name in CAPTION_KEYS if name in fitting]


def columns_left_out(schema: pa.Schema, has_labels: bool) -> Iterator[str]:
    """Says which columns have the name of captions, or of labels where there are none, and hold
    something else."""
    for names, fits, wanted in (
        (CAPTION_KEYS, _is_text, "captions are texts"),
        (() if has_labels else LABELS, _is_label, "labels are whole numbers or texts"),
    ):
        for field in schema:
            if field.name in names and not fits(field.type) and not pa.types.is_null(field.type):
                yield (
                    f"the column {field.name} is left out because it holds {_short(field.type)}; "
                    f"{wanted}"
                )


def require_once(schema: pa.Schema, where: str) -> None:
    """Makes sure that no name that means something stands over two columns.

    Raises:
        ValueError: If one does.
    """
    for name in (*IMAGES, *LABELS, *CAPTION_KEYS):
        if schema.names.count(name) > 1:
            raise ValueError(f"{where} has the column {name} twice; it must have it once")


def require_short(table: pa.Table, where: str) -> None:
    """Makes sure of texts that stand for many rows each, that they are no longer than a caption.

    Raises:
        ValueError: If one is.
    """
    for name in table.schema.names:
        for chunk in table[name].chunks:
            if isinstance(chunk, pa.DictionaryArray) and _is_text(chunk.dictionary.type):
                longest = pc.max(pc.binary_length(chunk.dictionary.cast(pa.large_string())))
                if (longest.as_py() or 0) > 4 * LONGEST:
                    raise ValueError(
                        f"{where} has a text of {longest.as_py()} bytes in the column "
                        f"{printable(name)}; at most {4 * LONGEST} are read"
                    )


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        kind = kind.field(index).type if index >= 0 else kind
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_null(kind)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _is_label(kind: pa.DataType) -> bool:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_text(kind) or pa.types.is_integer(plain) or pa.types.is_boolean(plain)


def _short(kind: pa.DataType) -> str:
    text = printable(str(kind))
    return text if len(text) <= 60 else f"{text[:60]}..."
