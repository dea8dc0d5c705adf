"""Every `ddim` command that the documentation shows is one that the command line takes."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from ddim_core.text2image.embedded import embedded_base
from flows.cli.app import app
from flows.cli.document import command_pages, commands
from tests.flows.grids import PROJECT

FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(ddim [^`]+)`")
LEFT_OUT = {"...", "\u2026"}
# They take seconds and need no more than rows; what they show is tested elsewhere.
BUILT = ("grid", "init", "lora", "paper", "swiss-roll", "train", "tune")
# What these commands name, so that it stands there; and what cannot be on any machine.
CHECKPOINTS = ("sd", "sdxl", "sd15", "runs/faces", "runs/new", "runs/old", "runs/step-1000", "A",
               "runs/step-2000", "B", "NEW", "OLD", "PLACE", "FOLDER", "ddpm-church",
               "sd-vae-ft-ema")  # fmt: skip
IMAGES = ("faces", "path/to/images", "photos", "my_dog", "my_style", "my-images")
FILES = ("p.txt", "prompts.txt", "style.safetensors", "0400000.pt",
         "edm2-img64-s-1073741-0.045.pkl", "edm2-img64-xs-0134217-0.110.pkl")  # fmt: skip
ELSEWHERE = ("which is not here", "there is no data", "there is no file or folder", "of snapshots")
CHEAP = ("table", "table --compare", "report", "track --resend", "data digits")


def pages() -> list[Path]:
    written = [*(PROJECT / "docs").glob("*.md"), PROJECT / "README.md", PROJECT / "data/README.md"]
    return sorted(written)


def blocks(page: Path) -> Iterator[str]:
    """The text of each block of a page, and of all its examples and notebooks."""
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
        yield from ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    elif page.suffix == ".md":
        yield from FENCE.findall(page.read_text(encoding="utf-8"))
    else:
        yield page.read_text(encoding="utf-8")


def shown(page: Path) -> Iterator[str]:
    """The commands in a page's blocks, each in one line."""
    for block in blocks(page):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"(?:^|&& |; |! ?|run: |=\S+ )(ddim [a-z-].*)", line.strip())
            if found:
                yield found[1]


def words_of(line: str) -> list[str]:
    """A command's words after `ddim`, up to a comment, a pipe or the next command."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&>")
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= set("|;&>"):
            break
        words.append(word)
    return [word for word in words[1:] if word not in LEFT_OUT]


def parse(words: list[str]) -> None:
    """Has click read a command line, without doing it.

    Raises:
        Exception: As click does, of what it does not take.
    """
    command: Any = get_command(app)
    name = "ddim"
    while under := getattr(command, "commands", None):
        if not words or words[0].startswith("-"):
            break
        name, *words = words
        assert name in under, f"there is no command {name}"
        command = under[name]
    command.make_context(name, [word for word in words if word != "--help"])


OTHERS = (
    *sorted((PROJECT / "docs" / "notebooks").glob("*.ipynb")),
    PROJECT / "docs" / "examples" / "gate.yml", PROJECT / ".ci" / "installed",
)  # fmt: skip
LINES = [(page.name, line) for page in (*pages(), *OTHERS) for line in shown(page)]


def test_the_documentation_shows_its_commands_in_blocks() -> None:
    assert len(LINES) > 100
    assert {name for name, _ in LINES} >= {"README.md", "index.md", "gate.yml", "installed"}


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_shown_command_is_one_that_is_taken(page: str, line: str) -> None:
    parse(words_of(line))


def test_what_a_shown_command_asks_for_can_be_where_its_places_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a request is built, up to the line that says what is about to be done."""
    for name in CHECKPOINTS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).symlink_to(embedded_base())
    for name in IMAGES:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    (tmp_path / "data").symlink_to(PROJECT / "data")
    for name in FILES:
        (tmp_path / name).write_text("a red ball")

    class ReachedError(Exception): ...

    def reach(*_: object) -> None:
        raise ReachedError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.run.waiting.shown", reach)
    monkeypatch.setattr("flows.team.writing.write", reach)
    refused, n = {}, 0
    for line in dict.fromkeys(line for _, line in LINES):
        words = words_of(line.replace('"$CHECKPOINT"', "NEW").replace('"$AGAINST"', "OLD"))
        if words and words[0] in BUILT and "--help" not in words:
            done, n = CliRunner().invoke(app, words), n + 1
            if "Reached" not in done.stderr and not any(why in done.stderr for why in ELSEWHERE):
                refused[line] = done.stderr
    assert n > 60
    assert refused == {}, "\n".join(map(str, refused.items()))


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_command_in_a_sentence_has_options_that_there_are(page: Path) -> None:
    known = commands()
    for said in INLINE.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        words = said.split()[1:]
        name = next((n for n in (" ".join(words[:2]), words[0]) if n in known), None)
        assert name or words[0] in {n.split()[0] for n in known} or words[0][0] in "-.", said
        declared = known[name].params if name else []
        options = {option for p in declared for option in (*p.opts, *p.secondary_opts)}
        for word in words:
            option = word.partition("=")[0].rstrip(".,:;)")
            assert not option.startswith("--") or option in options | {"--help"}, said


def test_cheap_commands_of_the_documentation_are_run(run_grid: Any) -> None:
    run_grid(seed=403, n_images=10)
    lines = {tuple(words_of(line)) for _, line in LINES}
    cheap = sorted(words for words in lines if " ".join(words) in CHEAP)
    assert len(cheap) == len(CHEAP)
    for words in cheap:
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (words, done.output)


def test_every_command_has_a_page_with_all_of_its_options() -> None:
    made = command_pages()
    for name, command in commands().items():
        assert command.help, name
        for parameter in command.params:
            assert parameter.help, (name, parameter.name)
            assert parameter.opts[0] in made[name] or parameter.param_type_name == "argument"


def test_the_compose_file_runs_services_and_commands_that_there_are() -> None:
    told = yaml.safe_load((PROJECT / "compose.yaml").read_text(encoding="utf-8"))
    services = told["services"]
    for name, service in services.items():
        assert service.get("depends_on", {}).keys() <= services.keys(), name
        for volume in service.get("volumes", []):
            assert volume.startswith("./") or volume.split(":")[0] in told["volumes"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        words = service.get("command") or []
        for line in [" ".join(words), *" ".join(words).split("&&")]:
            if line.strip().startswith("ddim "):
                parse(words_of(line.strip()))


def test_the_site_has_every_page_and_its_links_lead_somewhere() -> None:
    class Loader(yaml.SafeLoader):
        """Without the tags of mkdocs, which are functions."""

    Loader.add_multi_constructor("", lambda _loader, _tag, _node: None)
    site = yaml.load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    listed = set(re.findall(r"[\w-]+\.md", json.dumps(site["nav"])))
    assert {page.name for page in (PROJECT / "docs").glob("*.md")} - listed == set()
    for page in pages():
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            made = target.startswith(("commands/", "reference/")) or "://" in target
            assert made or (page.parent / target).exists(), f"{page.name}: {target}"
