"""What a page is made of: strips of images, nearest real ones, the list of all reports, the
charting library."""

from __future__ import annotations

import base64
import io
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tasks.reports import page
from tasks.reports.frame import shell, sprites
from tasks.reports.frame.index import listed
from tasks.reports.frame.nearest import nearest_real
from tasks.storage import places


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(sheet: str) -> np.ndarray:
    data = base64.b64decode(sheet.partition("base64,")[2])
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("channels", [1, 3])
def test_strips_of_small_images_keep_every_pixel(channels: int) -> None:
    batch = noise(0, 5, 12, 8, channels)
    found = sprites.sprites({"a": batch})
    assert (found.width, found.height, found.count) == (8, 12, 5)
    strip = decoded(found.sheets["a"])
    for i, image in enumerate(batch):
        assert (strip[:, 8 * i : 8 * i + 8] == image).all()


def test_strips_of_many_large_images_are_fewer_and_smaller_and_fit() -> None:
    batches = {str(i): noise(i, 8, 300, 200, 3) for i in range(20)}
    found = sprites.sprites(batches)
    assert sum(map(len, found.sheets.values())) <= sprites.MOST_BYTES
    assert found.height <= 256
    assert found.height / found.width == pytest.approx(1.5, rel=0.02)
    assert 1 <= found.count <= 8


def test_the_nearest_real_image_is_the_nearest_of_all_and_a_copy_is_at_no_distance() -> None:
    real = noise(1, 50, 8, 8, 3)
    drawn = noise(2, 4, 8, 8, 3)
    drawn[2] = real[33]
    found = nearest_real({"a": drawn[:1], "b": drawn[1:]}, real)
    apart = np.sqrt(((drawn[:, None] - real.astype(float)) ** 2).mean(axis=(2, 3, 4)))
    assert [*found.numbers["a"], *found.numbers["b"]] == apart.argmin(axis=1).tolist()
    assert [*found.distances["a"], *found.distances["b"]] == pytest.approx(apart.min(axis=1))
    assert found.distances["b"][1] == 0.0


def test_a_real_image_of_another_size_is_compared_by_what_its_pixels_cover() -> None:
    drawn = noise(3, 2, 8, 8, 1)
    real = drawn.repeat(4, axis=1).repeat(4, axis=2)
    assert nearest_real({"a": drawn}, real).numbers["a"] == [0, 1]


def test_the_list_names_each_report_as_its_page_does_even_an_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path))
    (tmp_path / "reports" / "pipe").mkdir(parents=True)
    os.mkfifo(tmp_path / "reports" / "pipe" / "index.html")  # which nobody writes to
    page.put("0123456789ab", b"<!doctype html><title>An &lt;old&gt; page</title><p>no answer")
    page.put("verdict-0123", b'<title>New</title><meta name="description" content="Ship &amp; go">')
    page.put("0123456789ac", b'<title>Until decided</title><meta name="kind" content="race">')
    old, race, new = sorted(listed(), key=lambda report: report.folder)
    assert (old.kind, old.title, old.answer) == ("grid", "An <old> page", "")
    assert race.kind == "race"
    assert (new.kind, new.title, new.answer) == ("verdict", "New", "Ship & go")
    text = Path(tmp_path, "reports", "index.html").read_text()
    assert 'href="verdict-0123/index.html"' in text
    assert "An &lt;old&gt; page" in text


def test_pages_of_one_subject_lead_to_each_other_and_to_the_nearest_of_a_kind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path))

    template = tmp_path / "any.html"
    own = '{% block links %}{% if kind == "verdict" %}<a href="../grid1/index.html">{% endif %}'
    template.write_text(
        "{% extends shell %}{% block title %}Any{% endblock %}" + own + "{% endblock %}"
    )

    def put(folder: str, kind: str, identities: str) -> None:
        said = {"kind": kind, "identities": identities.split()}
        page.put(folder, shell.html(template, {}, said).encode())

    def linked(folder: str) -> list[str]:
        nav = Path(tmp_path, "reports", folder, "index.html").read_text().split("<main")[0]
        return re.findall(r'href="../(\w+)/index.html"', nav)

    put("grid1", "grid", "weights cell1 cell2")
    put("verdict", "verdict", "weights cell1 cell2 other")
    put("alien", "tuning", "elsewhere")
    before = {one.folder: one.written for one in listed()}
    put("grid2", "grid", "weights cell3")
    put("tuned", "tuning", "weights cell3 cell4")
    assert [linked(name) for name in ("grid1", "verdict", "alien", "grid2", "tuned")] == [
        ["tuned", "verdict"], ["tuned", "grid1"], [], ["tuned", "verdict"], ["grid2", "verdict"],
    ]  # fmt: skip
    after = {one.folder: one.written for one in listed()}
    assert {folder: after[folder] for folder in before} == before


def test_a_damaged_charting_library_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {path.name.split("-")[0] for path in (shell.HERE / "vendor").glob("*.js")} == {
        path.suffix[1:] for path in (shell.HERE / "vendor").glob("LICENSE.*")
    }
    monkeypatch.setattr(shell, "LIBRARY", dict.fromkeys(shell.LIBRARY, "0" * 64))
    with pytest.raises(shell.FrameError, match=r"d3-7.*min\.js has the sha256 9121.*anew"):
        shell.html(shell.HERE / "index.html", {}, {"reports": []})
