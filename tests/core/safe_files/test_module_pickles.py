"""Snapshots that would run code, claim what they have not, or are damaged: each ends in words, and
nothing of them is called."""

from __future__ import annotations

import os
import pickle
import random
import struct
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddim_core.safe_files.pickles import modules
from ddim_core.safe_files.pickles.arrays import STAND_INS
from ddim_core.safe_files.pickles.modules import NAMES, PickledObject
from ddim_core.safe_files.safe_load import read_weights
from tests.core.edm_files import GOLDEN, Persistent, dumped, module, recorded

STATE = {"model.map_layer0.weight": torch.arange(6.0).reshape(2, 3), "u": torch.ones(4)}
SECONDS = 10.0


class Called:
    """Pickles as a call of something."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def written(place: Path, data: bytes) -> Path:
    (file := place / "network-snapshot-000100.pkl").write_bytes(data)
    return file


def refused(place: Path, data: bytes) -> str:
    began = time.monotonic()
    with pytest.raises(ValueError, match=r"network-snapshot-000100\.pkl") as told:
        read_weights(written(place, data))
    assert time.monotonic() - began < SECONDS
    return str(told.value)


def test_a_snapshot_is_read_as_data(tmp_path: Path) -> None:
    inner = module("SongUNet", {"map_layer0.weight": STATE["model.map_layer0.weight"]})
    more = {"_init_args": (5,), "_init_kwargs": {"label_dim": 3}}
    net = module("EDMPrecond", STATE, model_=inner, img_resolution=8, **more)
    held = net.meta["state"]  # a buffer that is not persistent is no weight
    held["_buffers"]["passing"] = torch.ones(1)
    held["_non_persistent_buffers_set"] = {"passing"}
    content = read_weights(written(tmp_path, dumped({"ema": net, "n": 3, "loss_fn": None})))
    assert content["n"] == 3
    assert list(content["ema"]) == ["u", "model.map_layer0.weight"]
    torch.testing.assert_close(content["ema"], STATE, rtol=0, atol=0)
    told = content["hparams"]["ema"]
    assert isinstance(told, PickledObject)
    assert (told.class_name, told.parts["model"].class_name) == ("EDMPrecond", "SongUNet")
    assert told.made_with == {"argument 0": 5, "label_dim": 3}
    assert told.attributes["img_resolution"] == 8


def test_names_of_weights_that_grow_with_their_depth_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dumped({"ema": module("Net", STATE)})
    monkeypatch.setattr(modules, "MOST_NAMES", sum(map(len, STATE)))
    read_weights(written(tmp_path, data))
    monkeypatch.setattr(modules, "MOST_NAMES", sum(map(len, STATE)) - 1)
    assert "have more than 23 letters" in refused(tmp_path, data)


@pytest.mark.parametrize("name", sorted({n for r in recorded().values() for n in r.meta["calls"]}))
def test_every_name_in_nvlabs_real_pickles_is_read_as_data(name: str) -> None:
    assert name in NAMES | set(STAND_INS)


def test_a_plain_pickle_of_weights_by_name_is_read(tmp_path: Path) -> None:
    kinds = (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8)
    state: dict[str, Tensor] = {str(kind): torch.ones(2, 3).to(kind) for kind in kinds}
    state |= {"turned": torch.arange(6).reshape(2, 3).t(), "part": torch.arange(9.0)[3:5]}
    state |= {"none": torch.zeros(0, 3), "one": torch.tensor(2.0)}
    content = read_weights(written(tmp_path, pickle.dumps({"ema": OrderedDict(state)})))
    assert {k: v.dtype for k, v in content["ema"].items()} == {k: v.dtype for k, v in state.items()}
    assert all(torch.equal(content["ema"][name], state[name]) for name in state)


def ran() -> Path:
    return Path(GOLDEN.parent / "a-snapshot-ran-this")


EVIL = f"import pathlib; pathlib.Path({str(ran())!r}).touch()\n"


@pytest.mark.parametrize(
    ("content", "asked"),
    [
        (lambda: {"ema": Called(os.system, "true")}, "system"),
        (lambda: {"ema": module("E", STATE, at=Called(os.system, "true"))}, "system"),
        (lambda: {"ema": Called(eval, "1")}, "builtins.eval"),
        (lambda: {"ema": Called(exec, EVIL)}, "builtins.exec"),
        (lambda: {"ema": Called(getattr, "", "join")}, "builtins.getattr"),
        (lambda: {"ema": os.system}, "system"),  # named, and not called
        (lambda: {"ema": Called(torch.load, "x")}, "torch.serialization.load"),
        (lambda: {"ema": Called(bytearray, 2**40)}, "builtins.bytearray"),
        (lambda: {"ema": torch.nn.Linear(2, 2)}, "torch.nn.modules.linear.Linear"),
    ],
)
def test_a_name_that_no_snapshot_needs_is_refused_by_name(
    content: Any, asked: str, tmp_path: Path
) -> None:
    told = refused(tmp_path, dumped(content()))
    assert asked in told
    assert not ran().exists()


def test_the_source_in_a_snapshot_is_not_run(tmp_path: Path) -> None:
    net = Persistent("Net", {"_parameters": {"w": STATE["u"]}}, source=EVIL)
    content = read_weights(written(tmp_path, dumped({"ema": net})))
    assert torch.equal(content["ema"]["w"], STATE["u"])
    assert not ran().exists()


def storage(kind: str, claimed: int, data: bytes, said: int | None = None) -> bytes:
    """What an older `torch.save` writes of a storage."""
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {}))
    told = (
        b"\x80\x02(X\x07\x00\x00\x00storagectorch\n" + kind.encode() + b"\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpuJ" + struct.pack("<i", claimed) + b"NtQ."
    )
    count = claimed if said is None else said
    return head + told + pickle.dumps(["0"], 2) + struct.pack("<q", count) + data


def tensor(
    data: bytes, size: tuple[int, ...] = (2,), stride: tuple[int, ...] = (1,), offset: int = 0
) -> Any:
    made = Called(torch.storage._load_from_bytes, data)
    hooks: OrderedDict[str, Any] = OrderedDict()
    return Called(torch._utils._rebuild_tensor_v2, made, offset, size, stride, False, hooks)


EIGHT = b"\0" * 8
WHOLE = storage("FloatStorage", 2, EIGHT)


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (tensor(storage("FloatStorage", 3, EIGHT)), "claims 3 numbers"),
        (tensor(storage("FloatStorage", 2**30, EIGHT)), "claims 1073741824 numbers"),
        (tensor(storage("FloatStorage", 2, EIGHT, said=2**40)), "claims 2 numbers"),
        (tensor(storage("FloatStorage", 2, EIGHT + b"more")), "claims 2 numbers"),
        (tensor(storage("FloatStorage", -1, EIGHT)), "claims -1 numbers"),
        (tensor(WHOLE.replace(pickle.dumps(1001, 2), pickle.dumps(1002, 2))), "claims 2 numbers"),
        (tensor(WHOLE.replace(pickle.dumps(["0"], 2), pickle.dumps(["1"], 2))), "claims 2 numbers"),
        (tensor(WHOLE.replace(b"cpuJ\2\0\0\0N", b"cpuJ\2\0\0\0K\0")), "claims 2 numbers"),
        (tensor(storage("UntypedStorage", 2, EIGHT)), "torch.UntypedStorage"),
        (tensor(storage("load", 2, EIGHT)), "torch.load"),
        (tensor(storage("FloatStorage", 2, EIGHT), (3,)), r"claims the shape \(3,\)"),
        (tensor(storage("FloatStorage", 2, EIGHT), (2,), (1,), 1), "and has 2 numbers"),
        (tensor(storage("FloatStorage", 2, EIGHT), (2**40,), (0,)), "and has 2 numbers"),
        (tensor(storage("FloatStorage", 2, EIGHT), (2,), (-1,)), "has the shape"),
        (tensor(storage("FloatStorage", 2, EIGHT), (2, 1), (1,)), "has the shape"),
        (tensor(pickle.dumps(Called(os.system, "true"))), "system"),
        (tensor(b"nothing"), "damaged"),
    ],
)
def test_a_tensor_that_claims_more_than_it_has_is_refused(
    made: Any, told: str, tmp_path: Path
) -> None:
    read_weights(written(tmp_path, dumped({"w": tensor(storage("FloatStorage", 2, EIGHT))})))
    with pytest.raises(ValueError, match=told):
        read_weights(written(tmp_path, dumped({"w": made})))


def by_hand(middle: bytes) -> bytes:
    return b"\x80\x04}\x8c\x03ema" + middle + b"s."


@pytest.mark.parametrize(
    "middle",
    [
        b"(S'true'\nios\nsystem\n",  # INST
        b"ccollections\nOrderedDict\n}\x8c\x01x\x8c\x01ysb",  # BUILD on a name
        b"ctorch.storage\n_load_from_bytes\n}b",
        b"Ptorch\n",  # PERSID
        b"\x82\x01",  # EXT1
        b"(lp0\ng0\n",  # PUT and GET of protocol 0
        b"].q\x00h\x00a",
    ],
)
def test_opcodes_that_no_snapshot_has_are_refused(middle: bytes, tmp_path: Path) -> None:
    refused(tmp_path, by_hand(middle))


def test_what_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    doubled: Any = ()
    for _ in range(60):
        doubled = (doubled, doubled)
    refused(tmp_path, pickle.dumps({"ema": doubled}))
    refused(tmp_path, dumped({"ema": Called(OrderedDict, [(doubled, 1)])}))  # as a key
    held: list[Any] = []
    held.append(held)
    refused(tmp_path, pickle.dumps({"ema": held}))
    deep: list[Any] = []
    for _ in range(300):
        deep = [deep]
    refused(tmp_path, pickle.dumps({"ema": deep}))
    shared = tensor(storage("FloatStorage", 2, EIGHT))
    data = dumped({"ema": [shared] * 20_000})  # made once
    began = time.monotonic()
    assert len(read_weights(written(tmp_path, data))["ema"]) == 20_000
    assert time.monotonic() - began < SECONDS


def test_no_mapping_is_refused(tmp_path: Path) -> None:
    assert "holds a list, and no mapping" in refused(tmp_path, pickle.dumps([1, 2]))


def test_damage_ends_in_words_or_in_other_numbers(tmp_path: Path) -> None:
    """Of 300 copies, each with a byte changed or cut short."""
    net = module("EDMPrecond", STATE, img_resolution=8)
    whole, draw = dumped({"ema": net}), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        if draw.random() < 0.3:
            data = data[: draw.randrange(len(data))]
        else:
            data[draw.randrange(len(data))] = draw.randrange(256)
        try:
            content = read_weights(written(tmp_path, bytes(data)))
        except ValueError:
            continue
        assert isinstance(content, dict)
    assert not ran().exists()
