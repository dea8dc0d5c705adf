"""What another trainer's settings ask for, in the words of this project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddim_core.common.foreign import Content
from ddim_core.common.printable import printable

LONGEST = 100  # characters of a value that is named
MOST_REPEATS = 10_000


@dataclass(frozen=True)
class Subset:
    """One folder of images, as another trainer takes it; images lie directly in it.

    Attributes:
        folder: Where they lie.
        repeats: How often each is seen, beside those of other folders.
        extensions: Endings of files of captions, the first that is there counts.
        words: The caption of an image that has no such file; empty is refused.
        before, after: What is put before and after each caption.
        trigger: The word that stands for `[trigger]`, put before captions that lack both.
        is_class: Images of the subject's class, for prior preservation.
    """

    folder: Path
    repeats: int = 1
    extensions: tuple[str, ...] = (".txt", ".caption")
    words: str = ""
    before: str = ""
    after: str = ""
    trigger: str = ""
    is_class: bool = False

    def caption(self, text: str) -> str:
        """Returns an image's caption, given what its file says."""
        return with_trigger(f"{self.before}{text}{self.after}", self.trigger, is_prompt=False)


@dataclass(frozen=True)
class TrainerSettings:
    """What another trainer's settings ask for.

    Attributes:
        trainer: Whose they are.
        subsets: The images.
        options: By the names of the parameters of `lora style` and `lora subject`.
        left_out: Of what says nothing here, each name with its value.
        remarks: How else the settings were understood, in sentences.
    """

    trainer: str
    subsets: tuple[Subset, ...]
    options: Mapping[str, Any]
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What was read and what was not, in sentences."""
        read = ", ".join(f"{k} {shown(v)}" for k, v in self.options.items()) or "nothing"
        found = [f"{self.trainer}'s options that are taken where nothing else is asked: {read}"]
        if self.left_out:
            found.append(f"{self.trainer}'s options that are left out: {', '.join(self.left_out)}")
        return (*found, *self.remarks)


def with_trigger(text: str, trigger: str, is_prompt: bool) -> str:
    """Returns a text with the trigger word in place of `[trigger]`; a caption that lacks it gets it
    in front."""
    told = text.replace("[trigger]", trigger) if trigger else text
    if is_prompt or not trigger or trigger in told:
        return told
    return f"{trigger}, {told}" if told else trigger


def shown(value: Any) -> str:
    """Returns a value on one line, cut where it is long."""
    text = printable(value if isinstance(value, str) else repr(value))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def unused(settings: Mapping[str, Any], used: Sequence[str], within: str = "") -> list[str]:
    """Returns what is set among settings and not used, each name with its value; what is off or
    empty asks for nothing."""
    return [
        f"{within}{printable(str(name))} = {shown(value)}"
        for name, value in settings.items()
        if name not in used and value not in (None, False, 0, "", [], {})
    ]


def table(settings: Mapping[str, Any], name: str, where: str) -> Content:
    """Returns a part of settings that is a mapping of names; empty where it is not there.

    Raises:
        ValueError: If it is something else.
    """
    found = settings.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError(f"{name} of {where} is {shown(found)}; it must be a mapping of names")
    return found


def tables(settings: Mapping[str, Any], name: str, where: str) -> list[Content]:
    """Returns a part of settings that is a list of mappings.

    Raises:
        ValueError: If it is something else, or empty.
    """
    found = settings.get(name)
    if not isinstance(found, list) or not found or not all(isinstance(x, dict) for x in found):
        raise ValueError(f"{where} has no {name}; it must be a list of at least one")
    return found


def whole(value: Any, name: str, where: str) -> int:
    """Returns a whole number of at least 1.

    Raises:
        ValueError: If it is none.
    """
    if type(value) is not int or value < 1:
        raise ValueError(
            f"{name} of {where} is {shown(value)}; it must be a whole number of at least 1"
        )
    return value


def dropout_of(settings: Mapping[str, Any], where: str) -> float:
    """Returns the share of captions that are left out, 0 if none is given; ValueError if it is no
    number."""
    share = settings.get("caption_dropout_rate") or 0.0
    if type(share) not in (int, float):
        raise ValueError(f"caption_dropout_rate of {where} is {shown(share)}; it must be a number")
    return share


def repeats_of(subset: Content, where: str) -> int:
    """Returns how often the images of a subset count (`num_repeats`, 1 if it is not there).

    Raises:
        ValueError: If it is no whole number from 1 to `MOST_REPEATS`.
    """
    repeats = whole(subset.get("num_repeats", 1), "num_repeats", where)
    if repeats > MOST_REPEATS:
        raise ValueError(f"num_repeats of {where} is {repeats}; it must be at most {MOST_REPEATS}")
    return repeats


def text_of(value: Any, name: str, where: str) -> str:
    """Returns a text; ValueError if it is none."""
    if not isinstance(value, str):
        raise ValueError(f"{name} of {where} is {shown(value)}; it must be text")
    return value


def folder_of(value: Any, name: str, where: Path) -> Path:
    """Returns a folder of images that settings name: relative to them, or to where we are.

    Raises:
        ValueError: If it is not there.
    """
    told = text_of(value, name, where.name)
    found = [place for place in (where.parent / told, Path(told)) if place.is_dir()]
    if not told or not found:
        raise ValueError(f"{name} of {where.name} is {told!r}, and there is no such folder")
    return found[0]


def largest(values: Sequence[Any], name: str, remarks: list[str]) -> Any:
    """Returns the largest of what several data sets ask for, where a training has one; says so."""
    distinct = sorted(set(values))
    if len(distinct) > 1:
        listed = ", ".join(map(str, distinct))
        remarks.append(f"of {name} {listed} the largest is taken")
    return distinct[-1]


def ending_of(value: Any, name: str, where: str) -> tuple[str, ...]:
    """Returns the ending of files of captions, as `Subset` takes it; those it takes where none is
    given.

    Raises:
        ValueError: If it is no text, or of files that hold more than a caption.
    """
    told = text_of(value or "", name, where)
    ending = told if told.startswith(".") or not told else f".{told}"
    if ending == ".json":
        raise ValueError(f"{name} of {where} is {told!r}; captions are read from text files alone")
    return (ending,) if ending else Subset.extensions


def squares(value: Any, buckets: bool, where: str) -> int:
    """Returns the side of the square that a resolution, a number or a pair, has the area of.

    Raises:
        ValueError: If it is neither, or a shape that is no square where images have one.
    """
    pair = value if isinstance(value, list) and len(value) == 2 else [value, value]
    width, height = (whole(side, "resolution", where) for side in pair)
    if width != height and not buckets:
        raise ValueError(
            f"resolution of {where} is {width} x {height}; images are cut to squares unless "
            "enable_bucket is on"
        )
    return width if width == height else int((width * height) ** 0.5)
