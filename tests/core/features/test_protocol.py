"""A score's protocol: recorded whole, and two of them never mixed."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from ddim_core.decisions.compare import PAIRED, difference
from ddim_core.features.extractor import FeatureRecord
from ddim_core.features.protocol import Protocol, differing_fields, require_comparable

RECORD = FeatureRecord(
    "inception-v3", "w" * 64, "pool, 2048", "tf1", "torch-fidelity", "bilinear", "(v - 128) / 128",
    "torch-fidelity",
)  # fmt: skip
PROTOCOL = Protocol(
    RECORD, "32x32", "32x32", "native", 2048, 1297, 1024, "r" * 64, "digits", "train", "s" * 64,
    sampler={"steps": 10, "eta": 0.0}, seed=0, versions={"torch": "2.14.1"},
)  # fmt: skip


def row(protocol: Protocol, **columns: object) -> SimpleNamespace:
    return SimpleNamespace(protocol=protocol.to_json(), fid=1.0, **columns)


def test_the_record_names_everything_that_a_score_hangs_on() -> None:
    told = json.loads(PROTOCOL.to_json())
    assert set(told) >= {
        "extractor", "extractor_weights_digest", "layer", "resize", "resize_library",
        "resize_filter",
        "quantisation", "scaling", "native_size", "n_images", "shard_size", "reference_digest",
        "split", "n_reference", "statistics_digest", "estimator", "versions", "sampler", "seed",
        "extractor_digest", "data_resize", "reference_native_size", "network",
    }  # fmt: skip
    assert told["extractor_digest"] == RECORD.digest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("extractor", "clip-vit-b-32"), ("extractor_weights_digest", "x" * 64),
        ("layer", "pool, 64"),
        ("resize", "clean"), ("scaling", "v / 255"),
    ],
)  # fmt: skip
def test_other_features_are_refused_and_named(field: str, value: str) -> None:
    other = replace(PROTOCOL, features=replace(RECORD, **{field: value}))
    assert set(differing_fields(row(PROTOCOL), row(other))) == {field, "extractor_digest"}
    with pytest.raises(ValueError, match=f"cannot be compared: .*{field} is .*{value}"):
        require_comparable(row(PROTOCOL), row(other))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("native_size", "64x64"), ("n_images", 512), ("n_reference", 500), ("split", "test"),
        ("reference_digest", "q" * 64), ("estimator", "another"), ("data_resize", "pillow-bicubic"),
        ("shard_size", 128),
    ],
)  # fmt: skip
def test_another_protocol_is_refused_and_named(field: str, value: object) -> None:
    other = row(replace(PROTOCOL, **{field: value}))
    assert differing_fields(row(PROTOCOL), other) == [field]
    with pytest.raises(ValueError, match=f"{field} is .* and "):
        require_comparable(row(PROTOCOL), other)


def test_what_is_compared_may_differ() -> None:
    other = replace(PROTOCOL, sampler={"steps": 20, "eta": 1.0}, seed=1, versions={"torch": "3"})
    require_comparable(row(PROTOCOL), row(other))


def test_statistics_decide_only_where_images_are_unknown() -> None:
    moved = replace(PROTOCOL, statistics_digest="t" * 64)  # another machine's rounding
    assert differing_fields(row(PROTOCOL), row(moved)) == []
    unknown = replace(PROTOCOL, reference_digest=None)
    assert differing_fields(row(unknown), row(unknown)) == []
    moved = replace(unknown, statistics_digest="t" * 64)
    assert differing_fields(row(unknown), row(moved)) == ["statistics_digest"]


def test_rows_without_a_record_are_judged_by_their_columns() -> None:
    told: dict[str, object] = {"extractor": "pixels", "n_images": 10, "protocol": None}
    one = SimpleNamespace(**told)
    assert differing_fields(one, SimpleNamespace(**told, split="test")) == []
    other = SimpleNamespace(**told | {"n_images": float("nan")})
    assert differing_fields(one, other) == ["n_images"]
    assert differing_fields(one, row(PROTOCOL)) == ["extractor", "n_images"]


def test_a_paired_comparison_asks_the_protocol_too() -> None:
    known: Any = dict.fromkeys(PAIRED) | {
        "fid_leave_one_out": [1.0, 2.0], "group_sizes": [5, 5], "seed": 0,
    }  # fmt: skip
    one: Any = row(PROTOCOL, **known)
    other: Any = row(replace(PROTOCOL, features=replace(RECORD, resize="clean")), **known)
    with pytest.raises(ValueError, match="resize is 'tf1' and 'clean'"):
        difference(one, other)
    assert difference(one, one).value == 0.0
