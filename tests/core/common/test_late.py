"""Libraries imported when something of them is used."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ddim_core.common.late import late, when_imported


@pytest.fixture(autouse=True)
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two modules that import each other, `one_late` first."""
    (tmp_path / "one_late.py").write_text(
        "import time\nimport two_late\ntime.sleep(0.05)\nvalue = two_late.base + 1\n"
    )
    (tmp_path / "two_late.py").write_text("import one_late\nbase = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    for name in ("one_late", "two_late"):
        sys.modules.pop(name, None)


def test_it_is_imported_when_something_of_it_is_asked_for_and_not_before() -> None:
    library = late("one_late")
    assert "one_late" not in sys.modules
    assert library.value == 2
    assert sys.modules["one_late"].value == 2
    assert getattr(library, "absent", None) is None


def test_threads_see_it_whole_also_where_its_modules_import_each_other() -> None:
    with ThreadPoolExecutor(8) as pool:
        names = [("one_late", "value"), ("two_late", "base")] * 4
        assert list(pool.map(lambda n: getattr(late(n[0]), n[1]), names)) == [2, 1] * 4


def test_a_setting_is_made_before_the_first_use_or_at_once() -> None:
    when_imported("one_late", lambda module: setattr(module, "value", 5))
    assert "one_late" not in sys.modules
    assert late("one_late").value == 5
    when_imported("one_late", lambda module: setattr(module, "value", 6))
    assert late("one_late").value == 6


def test_one_that_is_not_there_is_told_when_it_is_used() -> None:
    absent = late("no_such_library")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        absent.anything  # noqa: B018
