"""The pages as a person meets them: in Chromium, from disk, at two widths, light and dark."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddim_core.common.digest import digest
from ddim_core.common.printable import printable
from ddim_core.decisions.checkpoints.verdict import judge
from ddim_core.decisions.race import Rules
from ddim_core.lora.scoring.ranking import rank
from ddim_core.lora.scoring.row import LoraRow
from ddim_core.reports.lora_answer import answer
from ddim_core.tuning.judged import Apart, Judged
from ddim_core.tuning.search import Found
from tasks.lora.epochs.report import render_epochs
from tasks.reports import page as pages
from tasks.reports.curve import write_curve
from tasks.reports.frame.index import listed, write_index
from tasks.reports.grid import AboutGrid, render_report
from tasks.reports.race import render_snapshots
from tasks.reports.tuning import SHOWN, render_tuning
from tasks.reports.verdict import about_pair
from tasks.reports.verdict_page import file_verdict
from tasks.storage import places, store
from tasks.storage.artifact import Trajectories
from tasks.tuning.found import Narrowed, Tuned
from tests.core.decisions.test_snapshots import MOST, Snapshots, whole
from tests.core.decisions.test_verdict import Rows, grid, liked
from tests.core.lora.scoring.test_ranking import ASKED, candidate
from tests.tasks.reports.test_decided_by import filled
from tests.tasks.reports.test_report_names import PLANTED

playwright = pytest.importorskip("playwright.sync_api", reason="make test installs playwright")
if not shutil.which("chromium"):
    pytest.skip("no chromium on this machine (.ci/run installs it)", allow_module_level=True)

IMAGES, TRACED = 6, 2
COMMAND = "ddim grid --dataset '</pre><script>alert(1)</script>' --steps 10,20"
WORST_FIRST = np.array([0.3, 0.1, 0.5, 0.0, 0.4, 0.2], np.float32)  # of the first cell
DOTS = "#steps svg[role=img] g[aria-label=dot] > *"
# The least contrast of all text that is seen, with the text that has it (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const numbers = text => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const part = x => (x /= 255) <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * part(r) + .7152 * part(g) + .0722 * part(b);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const found = numbers(getComputedStyle(element).backgroundColor);
      if (found.length === 3 || found[3] === 1) return found;
    }
    return [255, 255, 255];
  };
  let least = [99, ""];
  const weigh = (ink, element, text) => {
    const [a, b] = [light(ink), light(ground(element))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < least[0]) least = [ratio, text.trim().slice(0, 40)];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || !element.checkVisibility({visibilityProperty: true})) continue;
    const style = getComputedStyle(element), svg = element.closest("svg");
    const ink = numbers(svg ? style.fill : style.color).slice(0, 3);
    if (ink.length === 3) weigh(ink, element, walk.currentNode.data);
  }
  for (const input of document.querySelectorAll("[placeholder]"))
    weigh(numbers(getComputedStyle(input, "::placeholder").color).slice(0, 3), input, input.placeholder);
  return least;
}"""  # noqa: E501

# Pictures that do not say what is in them.
SILENT = """() => [...document.querySelectorAll("main img, main canvas")]
  .filter(each => (each.alt || each.ariaLabel || "").length < 10).map(each => each.outerHTML)"""


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Six cells of a checkpoint with a name that would run, if anything of it were run."""
    name = printable(" ".join(PLANTED))
    return [
        replace(
            row, cell_digest=digest("cell", i), checkpoint=name, dataset=name,
            kid=1e-4 * (i - 0.01), kid_low=1e-4 * (i - 0.5), kid_high=1e-4 * (i + 0.5),
        )
        for i, row in enumerate(filled(liked(grid("new", 0.3, noise=1, training_step=200), 0.5)))
    ]  # fmt: skip


@pytest.fixture(scope="module")
def page_of_a_grid(rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "DATA_URL", str(tmp_path_factory.mktemp("data")))
        shards = [
            store.put_arrays({"images": np.full((IMAGES, 8, 8, 3), 40 * i, np.uint8)}, "shard")
            for i in range(len(rows))
        ]
        judged = [
            store.put_arrays(
                {"values": np.roll(WORST_FIRST, i)[np.arange(row.n_images) % IMAGES]}, "values"
            )
            for i, row in enumerate(rows)
        ]
        shown = [
            replace(
                row, image_score_shards=json.dumps({"image_reward": [ref.artifact]}),
                reference_digest=real_images(),
            )
            for row, ref in zip(rows, judged, strict=True)
        ]  # fmt: skip
        about = AboutGrid(None, None, ["fine"], [], None, [])
        rendered = render_report.fn(shown, shards, about, [ways(i) for i in range(len(rows))])
        yield Path(pages.publish("a-grid", pages.asked_by(rendered, COMMAND)))


def ways(cell: int) -> Trajectories:
    """How the first two images of a cell came about: from black to its grey, in 2 calls or 3."""
    t = np.array([900.0, 400.0, 0.0][cell % 2 :])
    greys = np.linspace(0, 40 * cell, len(t)).astype(np.uint8)
    x0 = np.broadcast_to(greys[None, :, None, None, None], (TRACED, len(t), 8, 8, 3))
    ref = store.put_arrays({"x0": np.ascontiguousarray(x0), "t": t}, "trajectories")
    return Trajectories(**vars(ref), calls=len(t))


def real_images() -> str:
    """Two of one grey, in the store."""
    greys = np.array([45, 90], np.uint8).reshape(2, 1, 1, 1)
    return store.put_arrays({"images": np.tile(greys, (1, 8, 8, 3))}, "images").artifact


def with_images(rows: Rows, grey: int) -> Rows:
    """Rows whose first images are in the store, and the real ones."""
    images = np.full((IMAGES, 8, 8, 3), grey, np.uint8)
    shard = store.put_arrays({"images": images}, "shard")
    real = real_images()
    return [replace(row, image_shards=[shard.artifact], reference_digest=real) for row in rows]


def snapshots_page() -> str:
    """Two snapshots, of which a fixed setting would take the wrong one."""
    world = Snapshots([[5.0, 2.0], [4.0, 3.0]], dataset="digits", extractor="pixels")
    found = whole(world)
    rows = with_images(list(world.looks[-1].values()), 80)
    rules = Rules("best", 0.95, 10**6, MOST, MOST)
    at = list(range(len(rows)))
    report = render_snapshots.fn(rows, at, found, None, rules, None, ["one was left out"])
    return pages.publish("snapshots", report)


def loras_page() -> str:
    """Three files of a LoRA's training, the last of which copies."""
    ranking = rank([candidate(0, 0.05), candidate(1, 0.3), candidate(2, 0.3, copies=0.9)])
    told: dict[str, Any] = dict.fromkeys(field.name for field in fields(LoraRow)) | {
        "kind": "style", "data": "a-style", "base": "a-base", "steps": 20, "guidance_scale": 3.0,
        "resolution": 16, "extractor": "pixels", "n_images": len(ASKED.texts),
    }  # fmt: skip
    pixels = np.arange(len(ASKED.texts) * 768).reshape(-1, 16, 16, 3).astype(np.uint8)
    images = store.put_arrays({"images": pixels}, "images")
    files = dict.fromkeys(("base", "epoch-0", "epoch-1", "epoch-2"), images)
    scales = {"base": images, "1": images}
    said = answer(ranking, ASKED, "style")
    report = render_epochs.fn(ranking, ASKED, files, scales, images, [LoraRow(**told)], said)
    return pages.publish("lora-score-0123", report)


def tuning_page(rows: Rows) -> str:
    """A list of four calls, beside the sampler as it stands and the long run."""
    pictures = {name: np.full((2, 8, 8, 3), 60 * i, np.uint8) for i, name in enumerate(SHOWN)}
    images, far = store.put_arrays(pictures, "pictures"), Apart(0.1, 0.05, 0.15)
    asked = (900.0, 600.0, 300.0, 0.0)
    one = Tuned(
        images, "unipc?timesteps=[900,600,300,0]", "unipc", 4, 4, 2.0, asked, (9.0, 3.0, 1.0, 0.1),
        (999.0, 666.0, 333.0, 0.0), 999.0, "vp", Judged(far, far, far, far, far), by_fid=False,
        long=None, found=Found(asked, 0.1, asked, 0.2, 0.1, 5, 20.0, True), n_images=8, moved=0.01,
        long_steps=64, features="", known=(), warnings=(),
        narrowed=Narrowed("unipc?timesteps=[800,500,200,0]", (0.2, 3.0), far),
    )  # fmt: skip
    report = render_tuning.fn([one], list(rows), "new", rows[0].weights_digest, [], 0.1,
                              [(0.0, 0.01), (999.0, 157.0)])  # fmt: skip
    return pages.publish("tune-0123", report)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Opens a page; fails on errors, on questions to the network, and on scripts of the data's."""
    contexts, wrong = [], []

    def open_(path: Path, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, reduced_motion="reduce",
            permissions=["clipboard-read", "clipboard-write"],
        )  # fmt: skip
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(f"alert: {dialog.message}"))
        page.on("request", lambda asked: wrong.append(asked.url)
                if not asked.url.startswith(("file:", "data:")) else None)  # fmt: skip
        page.goto(path.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_every_page_fits_its_window_and_can_be_read(
    page_of_a_grid: Path, rows: Rows, opened: Any, width: int, scheme: str
) -> None:
    old = [
        replace(
            row, cell_digest=digest("old", row.cell_digest), weights_digest="old",
            checkpoint="old", training_step=100, fid=row.fid + 1.0,
        )
        for row in rows
    ]  # fmt: skip
    new, old = with_images(rows, 200), with_images(old, 40)
    verdict = file_verdict(
        about_pair(new, old), judge(new, old), new, [*old, *new], command=COMMAND
    )
    twin = [replace(row, weights_digest="twin", checkpoint="twin") for row in rows]
    curve = write_curve(rows, [*old, *rows, *twin], [], twins=[rows, twin])
    found = snapshots_page(), loras_page(), tuning_page(new)
    for place in (str(page_of_a_grid), verdict.page, curve, *found, write_index()):
        page = opened(Path(place), width, scheme)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, place
        assert page.evaluate(SILENT) == [], place
        if "/tune-" not in place and "reports/index" not in place:  # the answer comes first
            assert re.match("answer|reading", page.locator("h1 + *").get_attribute("class")), place
        ratio, text = page.evaluate(CONTRAST)
        assert ratio >= 4.5, (place, ratio, text)
        assert (
            page.locator("figure svg[role=img]").count()
            == page.locator(
                "main figure[data-lines], main figure[data-differences], #steps, #calls"
            ).count()
        )
        if width == 1280:  # where the tables fit, too
            for room in page.locator(".scroll").all():
                assert room.evaluate("e => e.scrollWidth <= e.clientWidth"), place
    kinds = {"grid", "verdict", "checkpoints", "snapshots", "LoRA files", "tuning"}
    assert {report.kind for report in listed()} == kinds
    assert Path(page_of_a_grid).stat().st_size < 5_000_000


def test_a_cell_is_pointed_at_opened_and_compared(page_of_a_grid: Path, opened: Any) -> None:
    page = opened(page_of_a_grid)
    assert page.locator(".headline").inner_text().startswith(("Ship", "Nothing"))
    dot = page.locator(DOTS).first
    dot.hover(force=True)
    tip = page.locator('#steps g[aria-label="tip"]')
    tip.locator("tspan").first.wait_for()
    assert re.search(r"95 % \[.*N = ", tip.text_content())
    dot.click(force=True)
    named = page.locator("dialog h3").inner_text()
    page.get_by_role("button", name="Compare it, on the right").click()
    page.locator("dialog").wait_for(state="detached")
    chosen = page.locator("#compare select").nth(1)
    assert chosen.evaluate("select => select.selectedOptions[0].textContent") == named
    assert (
        page.locator("#compare figcaption")
        .nth(2)
        .inner_text()
        .startswith(f"right: {named}, image 0; ")
    )
    page.locator("#compare .panes").press("ArrowRight")
    assert (
        page.locator("#compare figcaption")
        .nth(2)
        .inner_text()
        .startswith(f"right: {named}, image 1; ")
    )
    width = page.locator("#compare canvas").first.bounding_box()["width"]
    assert width % 8 == 0  # whole pixels of an image of 8
    near = page.locator("#compare figcaption").nth(3).inner_text()  # the left cell's, of one grey
    assert re.search("nearest real image, number [01], [0-9.]+ away", near)
    page.get_by_role("slider", name="How much").fill("10")
    assert "90%" in page.locator("#compare canvas").nth(1).evaluate("each => each.style.clipPath")
    # The keyboard opens a heat map's cell and a chart's point too, and Escape closes it.
    page.locator("#steps svg[role=img]").press("ArrowRight")
    for place in ("#heat button", "#steps svg[role=img]"):
        page.locator(place).first.press("Enter")
        assert page.locator("dialog[open]").count() == 1
        page.keyboard.press("Escape")
        page.locator("dialog").wait_for(state="detached")


def test_how_two_images_came_about_is_stepped_through(page_of_a_grid: Path, opened: Any) -> None:
    page = opened(page_of_a_grid)
    page.locator("#compare select").nth(0).select_option(index=2)
    page.locator("#compare select").nth(1).select_option(index=1)
    slider, captions = page.get_by_label("How far along the way"), page.locator("#way figcaption")

    def ends() -> list[str]:
        return [caption.rsplit(", call ")[1] for caption in captions.all_inner_texts()]

    def grey(side: int) -> int:
        return int(page.locator("#way figure > canvas").nth(side).evaluate(
            "each => each.getContext('2d').getImageData(4, 4, 1, 1).data[0]"))  # fmt: skip

    assert ends() == ["3 of 3, t = 0", "2 of 2, t = 0"]
    slider.fill("0")
    assert ends() == ["1 of 3, t = 900", "1 of 2, t = 400"]
    page.wait_for_timeout(50)
    assert grey(1) == 0
    page.locator("#way .strip").first.locator("button").nth(1).click()
    assert ends()[0] == "2 of 3, t = 400"
    page.wait_for_timeout(50)
    assert grey(0) == 40
    for _ in range(TRACED):
        page.locator("#compare .panes").press("ArrowRight")
    assert slider.is_hidden()
    assert "Kept of the images 0 to 1" in page.locator("#way").inner_text()


def test_two_checkpoints_are_compared_and_a_command_is_copied(
    page_of_a_grid: Path, rows: Rows, opened: Any
) -> None:
    old = [replace(row, cell_digest=digest("old", row.cell_digest), weights_digest="old",
                   checkpoint="old", fid=row.fid + 1.0) for row in rows]  # fmt: skip
    new, old = with_images(rows, 200), with_images(old, 40)
    filed = file_verdict(about_pair(new, old), judge(new, old), new, [*old, *new])
    page = opened(Path(filed.page))
    said = page.locator("#compare figcaption").all_inner_texts()
    assert said[1].startswith("left: old (step 200), ")
    shown = [caption.partition(", S")[2].split("; ") for caption in said[1:3]]
    assert shown[0][0] == shown[1][0]  # of one cell
    assert [score for _, score, *_ in shown] == [
        f"FID {row.fid:.2f} [{row.fid_low:.2f}, {row.fid_high:.2f}], N = {row.n_images} images"
        for row in (min(old, key=lambda row: row.fid), min(new, key=lambda row: row.fid))
    ]
    assert "nearest real image, number 0, 5 away" in said[3]  # 40 beside 45 and 90
    assert "nearest real image, number 1, 110 away" in said[4]
    page.get_by_role("button", name="Swap").click()
    assert page.locator("#compare figcaption").nth(2).inner_text().startswith("right: old")
    page = opened(page_of_a_grid)
    page.get_by_role("button", name="Copy the command").click()
    assert page.evaluate("navigator.clipboard.readText()") == COMMAND
    page.get_by_role("button", name="Copy the digests").click()
    assert page.evaluate("navigator.clipboard.readText()").startswith("checkpoint  ")


def test_the_worst_images_come_first_where_that_is_asked_for(
    page_of_a_grid: Path, opened: Any
) -> None:
    page = opened(page_of_a_grid)
    page.locator("#compare select").nth(1).select_option(index=0)
    page.get_by_label("order").select_option(label="worst image_reward first, of the right cell")
    said = page.locator("#compare figcaption").nth(2)

    def seen() -> list[int]:
        page.get_by_role("spinbutton", name="image").fill("1")
        page.get_by_role("spinbutton", name="image").press("Enter")
        found = []
        for _ in range(IMAGES):
            found.append(int(re.search(r"image (\d)", said.inner_text())[1]))
            page.get_by_role("button", name="The image after").click()
        return found

    assert seen() == WORST_FIRST.argsort().tolist()
    # The order is that of the cell which is on the right by then.
    page.locator("#compare select").nth(1).select_option(index=2)
    assert seen() == np.roll(WORST_FIRST, 2).argsort().tolist()
    page.locator("#compare select").nth(0).select_option(index=1)
    page.get_by_role("button", name="Swap").click()
    assert seen() == np.roll(WORST_FIRST, 1).argsort().tolist()


def test_small_numbers_are_shown_by_the_thousand_with_digits_to_tell_them_apart(
    page_of_a_grid: Path, opened: Any
) -> None:
    page = opened(page_of_a_grid)
    page.locator("#measures select").first.select_option(label="KID \u00d7 10\u00b3")
    assert page.locator("#heat button").all_inner_texts()[0].startswith("0.00\n[-0.05, 0.05]")
    assert "0.40\n[0.35, 0.45]" in page.locator("#heat").inner_text()


def test_settings_are_sorted_by_the_numbers_in_them(page_of_a_grid: Path, opened: Any) -> None:
    page = opened(Path(snapshots_page()))
    assert page.locator(".reading p").first.inner_text().startswith("The best is step-")
    near = page.locator("#compare figcaption").last.inner_text()
    assert "nearest real image, number 1, 10 away" in near
    table = page.get_by_label("Settings")
    table.locator("td").first.evaluate("cell => { cell.textContent = 'S = 100'; }")
    table.get_by_role("button", name="setting", exact=True).click()
    assert table.locator("td:first-child").all_inner_texts() == ["S = 20, eta = 0", "S = 100"]


def test_colours_are_remembered_and_what_is_printed_is_light(
    page_of_a_grid: Path, rows: Rows, opened: Any
) -> None:
    page = opened(page_of_a_grid)
    scheme = "getComputedStyle(document.documentElement).colorScheme"
    page.get_by_role("button", name="Switch to dark colours").click()
    assert page.evaluate(scheme) == "dark"
    page.emulate_media(media="print")
    assert page.evaluate(scheme) == "light"
    page.emulate_media(media="screen")
    write_index()
    page.get_by_role("link", name="All of").click()
    page.get_by_role("button", name="Switch to light colours").wait_for()
    assert page.evaluate(scheme) == "dark"
    asked = page.get_by_role("searchbox").input_value()
    assert asked == rows[0].checkpoint
    seen = page.locator("tbody tr:visible").all_inner_texts()
    assert seen
    assert all(" ".join(asked.split()) in " ".join(text.split()) for text in seen)


def test_lines_and_axes_are_switched(page_of_a_grid: Path, opened: Any) -> None:
    page = opened(page_of_a_grid)
    dots = page.locator(DOTS)
    before = dots.count()
    page.locator("#steps .key button").first.press("Enter")
    assert 0 < dots.count() < before
    assert page.locator("#steps .key button").first.evaluate("each => each.matches(':focus')")
    page.get_by_role("button", name="All lines").first.click()
    assert dots.count() == before
    place = dots.nth(1).get_attribute("transform")
    page.locator("#steps select").first.select_option(label="linear")
    assert dots.nth(1).get_attribute("transform") != place
    svg = page.locator("#steps svg[role=img]")
    assert "FID over steps S. eta = 0: " in svg.get_attribute("aria-description")


def test_axes_have_ticks_down_to_a_rule_and_none_over_another(
    page_of_a_grid: Path, opened: Any
) -> None:
    page = opened(page_of_a_grid, 390)
    page.evaluate("""() => line_chart(document.getElementById("steps"), {
      title: "t", x: "x", y: "y", log_x: true, log_y: true, rule: {y: 0.4, text: "floor"},
      points: [5, 10, 20, 50, 100, 200, 500, 1000].map(x => ({line: "a", x, y: 100 + x, note: ""}))
        .concat({line: "b", x: 5, y: 200, note: ""}), bare: ["a"],
    })""")
    page.locator("#steps svg[role=img]").press("ArrowRight")  # to the first point, of line a
    assert page.locator("#steps .marked").get_attribute("fill") == "var(--line-0)"
    heights = page.locator('#steps g[aria-label="y-axis tick label"] text').all_text_contents()
    assert min(map(float, heights)) < 1
    boxes = [
        text.bounding_box()
        for text in page.locator('#steps g[aria-label="x-axis tick label"] text').all()
    ]
    assert len(boxes) > 2
    ordered = sorted(boxes, key=lambda box: box["x"])
    for left, right in pairwise(ordered):
        assert left["x"] + left["width"] < right["x"]


def test_a_table_is_sorted_filtered_and_copied(
    page_of_a_grid: Path, rows: Rows, opened: Any
) -> None:
    page = opened(page_of_a_grid)
    table = page.get_by_label("All scores").locator("table")
    table.get_by_role("button", name="FID", exact=True).click()
    fids = [float(cell.split()[0]) for cell in table.locator("td:nth-child(4)").all_inner_texts()]
    assert fids == sorted(fids)
    assert table.locator("th[aria-sort=ascending]").inner_text().startswith("FID")
    copied = {}
    for name in ("Markdown", "CSV", "LaTeX"):
        page.locator("#scores").get_by_role("button", name=f"Copy {name}").first.click()
        copied[name] = page.evaluate("navigator.clipboard.readText()")
    read = list(csv.DictReader(io.StringIO(copied["CSV"])))
    best = min(rows, key=lambda row: row.fid)
    assert [float(read[0][name]) for name in ("FID", "FID low", "FID high")] == pytest.approx(
        [best.fid, best.fid_low, best.fid_high]
    )
    assert float(read[0]["KID \u00d7 10\u00b3"]) == pytest.approx(1000 * best.kid)
    assert "'-" not in copied["CSV"]
    assert "" in {row["precision"] for row in read}  # which these rows have not
    assert "{KID $\\times$ 10$^3$}" in copied["LaTeX"]
    assert copied["Markdown"].count("\n") == 2 + len(rows)
    assert copied["LaTeX"].count(r"\\") == 1 + len(rows)
    assert f"{best.fid:.2f} [{best.fid_low:.2f}, {best.fid_high:.2f}]" in copied["LaTeX"]
    page.locator("#scores input[type=search]").first.fill("eta = 1")
    assert table.locator("tbody tr:visible").count() == sum(row.eta == 1.0 for row in rows)
