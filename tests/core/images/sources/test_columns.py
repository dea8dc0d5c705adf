"""Columns of tables by name and type: none is dropped without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddim_core.images.load import load_images
from ddim_core.lora.data import read_captioned
from tests.picture_files import encoded, picture

CELLS = [{"bytes": encoded(picture(k)), "path": None} for k in range(3)]


def written(place: Path, form: str, names: list[str] | None = None, **columns: Any) -> Path:
    whole = {"image": CELLS, **columns}
    table = pa.Table.from_arrays([pa.array(c) for c in whole.values()], names=names or list(whole))
    path = place / f"train.{form}"
    if form == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as file:
            file.write_table(table)
    return path


LABELS: dict[str, tuple[pa.Array, tuple[str, ...], list[int]]] = {
    "large_string": (pa.array(["b", "a", "b"], pa.large_string()), ("a", "b"), [1, 0, 1]),
    "string_view": (pa.array(["b", "a", "b"], pa.string_view()), ("a", "b"), [1, 0, 1]),
    "dictionary": (pa.array(["b", "a", "b"]).dictionary_encode(), ("a", "b"), [1, 0, 1]),
    "numbers in a dictionary": (pa.array([1, 0, 1]).dictionary_encode(), ("0", "1"), [1, 0, 1]),
    "bool": (pa.array([True, False, True]), ("0", "1"), [1, 0, 1]),
    "unsigned": (pa.array([1, 0, 1], pa.uint8()), ("0", "1"), [1, 0, 1]),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_labels_of_any_type_that_tells_classes_are_read(
    kind: str, form: str, tmp_path: Path
) -> None:
    column, names, expected = LABELS[kind]
    found = load_images(str(written(tmp_path, form, label=column)), "all", 8)
    assert found.class_names == names
    assert found.labels is not None
    assert found.labels.tolist() == expected


@pytest.mark.parametrize("kind", ["large_string", "string_view", "dictionary"])
@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_captions_of_any_type_of_text_are_read(kind: str, form: str, tmp_path: Path) -> None:
    texts = pa.array(["a", "b", "a"])
    column = texts.dictionary_encode() if kind == "dictionary" else texts.cast(getattr(pa, kind)())
    path = written(tmp_path, form, text=column)
    assert load_images(str(path), "all", 8).captions == ("a", "b", "a")
    assert [item.caption for item in read_captioned(path)] == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("columns", "wanted"),
    [
        ({"label": [0.0, 1.0, 1.0]}, "column label is left out because it holds double; labels"),
        ({"label": [[0], [1], [1]]}, "column label is left out because it holds list<"),
        ({"text": [["a"], ["b"], ["c"]]}, "column text is left out because it holds list<"),
        ({"text": [1, 2, 3]}, "column text is left out because it holds int64; captions"),
        ({"prompt": [b"a", b"b", b"c"]}, "column prompt is left out because it holds binary"),
    ],
)
def test_a_column_of_another_type_is_told_of(
    columns: dict[str, Any], wanted: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "parquet", **columns)
    found = load_images(str(path), "all", 8)
    assert found.labels is None
    assert found.captions is None
    assert any(wanted in note for note in found.notes)
    with pytest.raises(ValueError, match="has no texts in a column text, caption, prompt") as told:
        read_captioned(path)
    assert (wanted in str(told.value)) == ("label" not in columns)


@pytest.mark.parametrize("kind", ["dictionary", "binary_view", "fixed"])
def test_images_of_a_type_that_is_not_read_are_refused_with_it(kind: str, tmp_path: Path) -> None:
    data = pa.array([encoded(picture(0))] * 3)
    column = {
        "dictionary": data.dictionary_encode(),
        "binary_view": data.cast(pa.binary_view()),
        "fixed": data.cast(pa.binary(len(data[0].as_py()))),
    }[kind]
    path = written(tmp_path, "arrow", image=column)
    for read in (lambda: load_images(str(path), "all", 8), lambda: read_captioned(path)):
        with pytest.raises(ValueError, match=r"0 image columns among image \(\S+"):
            read()


@pytest.mark.parametrize("names", [["cat", "dog"], None])
def test_a_negative_label_is_no_class_but_minus_one_hides_it(
    names: list[str] | None, tmp_path: Path
) -> None:
    from datasets import ClassLabel, Dataset, Features, Image

    features = Features({"image": Image(), "label": ClassLabel(names=names)}) if names else None
    for labels in ([0, -2, 1], [0, 2**40, 1]):
        data = {"image": CELLS, "label": labels}
        path = tmp_path / "train.parquet"
        if features is None:
            path = written(tmp_path, "parquet", label=labels)
        else:
            table = pa.Table.from_pydict(data)
            schema = features.arrow_schema
            pq.write_table(table.cast(pa.schema(table.schema, metadata=schema.metadata)), path)
        with pytest.raises(ValueError, match=r"label(s from)? -?\d+"):
            load_images(str(path), "all", 8)
    assert Dataset  # the library that writes such tables


@pytest.mark.parametrize("name", ["text", "image", "label"])
def test_a_column_that_stands_twice_is_refused(name: str, tmp_path: Path) -> None:
    columns = {"text": ["a", "b", "c"], "label": [0, 1, 1], "more": CELLS}
    names = ["image", "text", "label", name]
    if name != "image":
        columns["more"] = columns[name]
    path = written(tmp_path, "parquet", names, **columns)
    with pytest.raises(ValueError, match=f"has the column {name} twice"):
        load_images(str(path), "all", 8)


def test_a_text_that_stands_for_many_rows_is_no_longer_than_a_caption(tmp_path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 0, 0]), pa.array(["a" * 2**20]))
    with pytest.raises(ValueError, match="has a text of 1048576 bytes in the column text"):
        load_images(str(written(tmp_path, "arrow", text=texts)), "all", 8)
