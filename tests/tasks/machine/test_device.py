"""Cards by name, and each taken by one task at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ddim_core.devices.names import is_card, kind_of
from flows.requests.flat import build
from flows.requests.grid import GridRequest
from flows.requests.images import Machine
from flows.requests.tuning import TuneRequest
from tasks.machine import device
from tasks.machine.device import card, cards_of, require_device, settled


def test_names() -> None:
    assert [kind_of(name) for name in ("cpu", "cuda:1,cuda:2", "cpu:0")] == ["cpu", "cuda", "cpu"]
    assert [is_card(name) for name in ("cpu", "cuda", "cpu:0", "mps")] == [False, True, True, True]
    assert cards_of("cpu:0, cpu:1") == ["cpu:0", "cpu:1"]
    assert settled("auto") == ("cpu" if not device._any_gpu() else settled("auto"))
    require_device("cpu:0,cpu:1")


def test_auto_is_cuda_where_there_is_one_and_cuda_is_all_cards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import torch

    here = {"cuda": True, "mps": True}
    monkeypatch.setattr(device, "_any_gpu", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: here["cuda"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: here["mps"])
    assert settled("auto") == "cuda"
    assert cards_of("cuda") == ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]
    here["cuda"] = False
    assert settled("auto") == "mps"
    here["mps"] = False
    assert settled("auto") == "cpu"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gpu", "device is 'gpu'.*must be cpu, cuda, mps or auto"),
        ("cuda:x", "name cards as cuda:0 or cuda:0,cuda:1"),
        ("cpu:0,meta:0", "must be of one kind"),
        ("cpu:0,cpu:0", "each named once"),
        ("cpu:0, cpu:0", "each named once"),
        ("cpu,cpu:0", "must be of one kind"),
    ],
)
def test_what_is_no_device_is_refused(name: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        require_device(name)


def test_a_machine_says_what_a_card_adds() -> None:
    assert Machine().card_at(32) is None
    assert not Machine().counts
    found = Machine(device="cpu:0,cpu:1", batch_size=64).card_at(512)
    assert found is not None
    assert (found.kind, found.batch, found.compiled) == ("cpu", 16, False)
    assert Machine(device="cpu:0", batch_size=64).batch_at(32) == 64
    with pytest.raises(ValueError, match="compile is on, which is for cards"):
        Machine(compile=True)
    with pytest.raises(ValueError, match="name the device"):
        Machine(device="auto", runner="dask:tcp://host:8786")


def test_a_card_is_part_of_what_grids_and_tunings_are_and_tf32_is_for_cards() -> None:
    for record in (GridRequest, TuneRequest):
        here, there = (build(record, {"device": name}) for name in ("cpu", "cpu:0"))
        other = build(record, {"device": "cpu:1", "batch_size": 8})
        names = [request.identity("x") for request in (here, there, other)]
        assert len(set(names)) == 3
        assert build(record, {"batch_size": 8}).identity("x") == names[0]
        with pytest.raises(ValueError, match="on a CPU give float32"):
            build(record, {"dtype": "tf32"})
        assert build(record, {"dtype": "tf32", "device": "cpu:0"}).machine.counts


def test_two_tasks_are_never_on_one_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    inside: dict[str, int] = {"cpu:0": 0, "cpu:1": 0}
    most, used, guard = [0], set(), threading.Lock()

    def work() -> None:
        with card("cpu:0,cpu:1") as mine:
            with guard:
                inside[mine] += 1
                used.add(mine)
                most[0] = max(most[0], *inside.values())
            time.sleep(0.02)
            with guard:
                inside[mine] -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
    assert used == {"cpu:0", "cpu:1"}


def test_a_card_is_let_go_after_an_error_and_a_plain_cpu_is_never_waited_for() -> None:
    with pytest.raises(KeyError), card("cpu:7"):
        raise KeyError
    with card("cpu:7") as mine, card("cpu") as first, card("cpu") as second:
        assert (mine, first, second) == ("cpu:7", "cpu", "cpu")


def test_float32_is_whole_while_another_thread_wants_tf32() -> None:
    import torch

    seen: list[bool] = []

    def tf32() -> None:
        with card("cpu:8", "tf32"):
            seen.append(torch.backends.cudnn.allow_tf32)

    other = threading.Thread(target=tf32)
    with card("cpu:9"):
        other.start()
        time.sleep(0.1)
        assert not seen
        assert not torch.backends.cudnn.allow_tf32
    other.join()
    assert seen == [True]


def test_no_one_waits_for_ever_for_another_arithmetic() -> None:
    """A thread that wants TF32 gets its turn though others keep coming that do not."""
    from ddim_core.devices.arithmetic import arithmetic

    order: list[str] = []
    entered, go = threading.Event(), threading.Event()

    def first() -> None:
        with arithmetic("float32"):
            entered.set()
            go.wait(10)

    def other(dtype: str) -> None:
        with arithmetic(dtype):
            order.append(dtype)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    entered.wait(10)
    for dtype in ("bfloat16", "float32"):
        threads.append(threading.Thread(target=other, args=(dtype,)))
        threads[-1].start()
        time.sleep(0.05)
    assert order == []  # the later float32 does not overtake
    go.set()
    for thread in threads:
        thread.join(10)
    assert order == ["bfloat16", "float32"]
