"""What a cache key is made of: equal meanings share a digest, and nothing else does."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ddim_core
from ddim_core.common import digest as module
from ddim_core.common.digest import canonical, code_digest, digest, file_digest
from ddim_core.diffusion.specs import GridCell, NoiseSpec, SamplerSpec
from ddim_core.networks.specs import ClassifierSpec


def test_equal_settings_have_one_digest_however_they_are_written() -> None:
    assert digest(SamplerSpec(10, eta=0)) == digest(SamplerSpec(10, eta=0.0))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest((1, 2)) == digest([1, 2])
    assert digest(SamplerSpec(10, eta=0.3, variance="sigma_hat")) == digest(
        SamplerSpec(10, eta=1.0, variance="sigma_hat")
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), (1, True), (0, False), (0, None), ("1", 1), ("", None), (0.0, -0.0),
        (0.1, math.nextafter(0.1, 1)), ([1, 2], [2, 1]), ([[1], [2]], [[1, 2]]), ([], {}),
        ({"a": {"b": 1}}, {"a": 1, "b": 1}), (["a", 1], {"a": 1}),
        (SamplerSpec(10), SamplerSpec(11)), (SamplerSpec(10), GridCell(SamplerSpec(10))),
        (GridCell(SamplerSpec(5)), GridCell(SamplerSpec(5), noise=NoiseSpec())),
        ({"artifact": "a"}, {"artifact": "b"}), ({"artifact": "a"}, "a"),
    ],
)  # fmt: skip
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    assert digest(one) != digest(other)


def test_values_are_not_run_together() -> None:
    assert digest("a", "b") != digest("ab")
    assert digest("a", "b") != digest(["a", "b"])


def test_record_of_another_type_with_equal_fields_is_another_value() -> None:
    @dataclass(frozen=True)
    class One:
        steps: int

    @dataclass(frozen=True)
    class Other:
        steps: int

    assert digest(One(1)) != digest(Other(1))
    assert canonical(ClassifierSpec())["record"] == "ClassifierSpec"


def test_artefact_counts_by_its_content_alone() -> None:
    cheap = {"artifact": "f" * 64, "kind": "shard", "seconds": 1.0}
    dear = {"artifact": "f" * 64, "kind": "shard", "seconds": 99.0, "drawn": 10}
    assert digest([cheap]) == digest([dear])


@pytest.mark.parametrize(
    "value", [Path("a"), np.zeros(2), np.float64(0.5), b"ab", {1, 2}, object()]
)
def test_what_has_no_place_in_a_key_is_refused(value: Any) -> None:
    if isinstance(value, float):  # a NumPy float is a float, and counts as one
        assert digest(value) == digest(float(value))
        return
    with pytest.raises(TypeError, match="cannot be part of a cache key"):
        digest(value)


def test_infinite_and_missing_numbers_have_digests_of_their_own() -> None:
    assert len({digest(v) for v in (math.inf, -math.inf, math.nan, 0.0)}) == 4


def test_digest_is_that_of_earlier_runs_and_other_processes() -> None:
    # Recorded once: a change of the canonical form makes every stored result worthless, and
    # must be meant. Dict order and hash seeds play no part.
    recorded = "b67841e1c5016be5a4b23aaf5282667a4e0bfbb202f921a50992da69fd7e9f7f"
    assert digest(SamplerSpec(10, eta=0.5), {"b": [1, None], "a": "x"}) == recorded


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert file_digest(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223b00361a3")


Write = Callable[[str, str], None]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes modules into a folder that is part of the package `ddim_core` for one test."""
    monkeypatch.setattr(ddim_core, "__path__", [*ddim_core.__path__, str(tmp_path)])

    def forget() -> None:
        importlib.invalidate_caches()
        for cached in (code_digest, module._read, module._find):
            cached.cache_clear()

    def put(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
        forget()

    yield put
    forget()


TOP = (
    '"""Doc."""\nfrom ddim_core.made_middle import middle\n\n'
    "def top(x):\n    return middle(x) + 1\n"
)
MIDDLE = "from ddim_core import made_bottom\n\ndef middle(x):\n    return made_bottom.f(x)\n"
BOTTOM = "def f(x):\n    '''Doc.'''\n    # why\n    return 2 * x\n"


@pytest.fixture
def top_digest(write: Write) -> str:
    for name, text in (("top", TOP), ("middle", MIDDLE), ("bottom", BOTTOM)):
        write(f"made_{name}.py", text)
    return code_digest("ddim_core.made_top")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("made_top.py", TOP.replace('"""Doc."""', '"""Another doc,\nlonger."""')),
        ("made_top.py", TOP.replace('"""Doc."""\n', "")),
        ("made_bottom.py", BOTTOM.replace("# why", "# because\n")),
        ("made_bottom.py", BOTTOM.replace("'''Doc.'''", "'''Other.'''")),
        ("made_bottom.py", BOTTOM.replace("2 * x", "(2*x)")),
        ("made_bystander.py", "x = 1\n"),
    ],
)
def test_comments_docstrings_and_layout_change_no_digest(
    top_digest: str, write: Write, name: str, text: str
) -> None:
    write(name, text)
    assert code_digest("ddim_core.made_top") == top_digest


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("made_top.py", TOP.replace("+ 1", "- 1")),
        ("made_middle.py", MIDDLE.replace("f(x)", "f(-x)")),
        ("made_bottom.py", BOTTOM.replace("2 * x", "2.0 * x")),
        ("made_bottom.py", BOTTOM.replace("return", "x = 'not a docstring'\n    return")),
        ("made_top.html", "<p>a template</p>"),
        ("made_bottom.html", "{}"),
    ],
)
def test_code_anywhere_below_and_companion_files_change_the_digest(
    top_digest: str, write: Write, name: str, text: str
) -> None:
    write(name, text)
    assert code_digest("ddim_core.made_top") != top_digest


def test_companion_file_counts_by_its_content(top_digest: str, write: Write) -> None:
    write("made_top.html", "one")
    one = code_digest("ddim_core.made_top")
    write("made_top.html", "two")
    assert len({top_digest, one, code_digest("ddim_core.made_top")}) == 3


def test_imports_inside_functions_and_in_circles_are_followed(write: Write) -> None:
    write("made_a.py", "def f():\n    from ddim_core.made_b import g\n    return g()\n")
    write("made_b.py", "import ddim_core.made_a\n\ndef g():\n    return 1\n")
    before = code_digest("ddim_core.made_a")
    write("made_b.py", "import ddim_core.made_a\n\ndef g():\n    return 2\n")
    assert code_digest("ddim_core.made_a") != before


WING = {
    "made_wing/__init__.py": '"""What lives here."""\n',
    "made_wing/inner/__init__.py": '"""What lives here."""\nfrom ddim_core.made_wing import door\n',
    "made_wing/inner/frechet.py": "def distance(x):\n    return 2 * x\n",
    "made_wing/door.py": "from ddim_core.made_wing.inner.frechet import distance\n",
    "made_wing/inner/asking.py": "",
    "made_wing/kernel.py": "def kid(x):\n    return 3 * x\n",
}


@pytest.mark.parametrize(
    "text",
    [
        "from ddim_core.made_wing.inner import frechet\n\ny = frechet.distance(1)\n",
        "from ddim_core.made_wing.inner import frechet as f\n\ny = f.distance(1)\n",
        "from ddim_core.made_wing.inner.frechet import distance\n\ny = distance(1)\n",
        "from ddim_core.made_wing.inner.frechet import distance as d\n\ny = d(1)\n",
        "from ddim_core.made_wing.inner.frechet import *\n\ny = distance(1)\n",
        "import ddim_core.made_wing.inner.frechet\n\ny = ddim_core.made_wing.inner.frechet\n",
        "import ddim_core.made_wing.inner.frechet as f\n\ny = f.distance(1)\n",
        "import ddim_core.made_wing.inner\n\ny = ddim_core.made_wing.inner.frechet.distance(1)\n",
        "import ddim_core.made_wing as w\n\ny = w.inner.frechet.distance(1)\n",
        "import ddim_core\n\ny = ddim_core.made_wing.inner.frechet.distance(1)\n",
        "from ddim_core import made_wing\n\ny = made_wing.inner.frechet.distance(1)\n",
        "from ddim_core.made_wing import inner as i\n\ny = i.frechet.distance(1)\n",
        "from ddim_core.made_wing.inner import door\n\ny = door.distance(1)\n",
        "import ddim_core.made_wing.inner.asking\n",
        "from .frechet import distance\n\ny = distance(1)\n",
        "from . import frechet\n\ny = frechet.distance(1)\n",
        "from ..inner.frechet import distance as d\n\ny = d(1)\n",
        "from .. import inner\n\ny = inner.frechet.distance(1)\n",
        "def f():\n    from ddim_core.made_wing.inner import frechet\n    return frechet\n",
    ],
)
def test_every_way_of_importing_is_followed_into_sub_packages(write: Write, text: str) -> None:
    for name, content in WING.items():
        write(name, content)
    write("made_wing/inner/using.py", text)
    write("made_user.py", "from ddim_core.made_wing.inner.using import y\n")
    for user in ("ddim_core.made_wing.inner.using", "ddim_core.made_user"):
        before = code_digest(user)
        write("made_wing/inner/frechet.py", "def distance(x):\n    return 2 + x\n")
        changed = code_digest(user)
        write("made_wing/kernel.py", "def kid(x):\n    return 4 * x\n")
        assert before != changed == code_digest(user)  # the bystander counts nowhere
        for name, content in WING.items():
            write(name, content)


def test_a_package_that_is_passed_through_counts_and_so_does_what_it_imports(write: Write) -> None:
    write("made_wing/__init__.py", "from ddim_core.made_top import FACTOR\n")
    write("made_top.py", "FACTOR = 1\n")
    write("made_wing/frechet.py", "from ddim_core import made_wing\n\ny = made_wing.FACTOR\n")
    write("made_user.py", "from ddim_core.made_wing import FACTOR\n")
    users = ("ddim_core.made_user", "ddim_core.made_wing.frechet")
    before = [code_digest(user) for user in users]
    write("made_top.py", "FACTOR = 2\n")
    assert all(code_digest(u) != b for u, b in zip(users, before, strict=True))


def test_star_import_of_a_package_is_refused_since_it_hides_what_is_meant(write: Write) -> None:
    write("made_wing/__init__.py", "")
    write("made_a.py", "from ddim_core.made_wing import *\n")
    with pytest.raises(ValueError, match="name them"):
        code_digest("ddim_core.made_a")


def test_name_of_the_outermost_package_that_is_no_module_is_refused(write: Write) -> None:
    write("made_a.py", "from ddim_core import frechet_distance\n")
    with pytest.raises(ValueError, match=r"no source for the module 'ddim_core\.frechet_distance'"):
        code_digest("ddim_core.made_a")


def test_modules_that_are_left_out_exist() -> None:
    assert all(module._find(name) for name in module.APART)


def test_unknown_module_is_refused() -> None:
    with pytest.raises(ValueError, match="no source for the module"):
        code_digest("ddim_core.no_such_module")


def test_code_digest_runs_nothing_that_it_reads(write: Write) -> None:
    write("made_a.py", "raise SystemExit('this module must not be run')\n")
    assert len(code_digest("ddim_core.made_a")) == 64
    assert "ddim_core.made_a" not in sys.modules


def test_many_threads_may_take_digests_at_once() -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = ["tasks.checkpoints.train", "tasks.cells.extractor", "tasks.images.prepare"] * 4
    expected = [module.code_digest(name) for name in names]
    for _ in range(5):
        module.code_digest.cache_clear()
        module._read.cache_clear()
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(module.code_digest, names)) == expected
