"""kohya's sd-scripts: folders named `10_sks cat`, and the TOML of `--dataset_config`.

Source: sd-scripts, docs/config_README-en.md; options of a subset count before those of its data
set, and these before `[general]`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddim_core.common.foreign import Content
from ddim_core.common.printable import printable
from ddim_core.lora.trainers import settings as told
from ddim_core.safe_files.settings import read_toml

NAME = "kohya"
FOLDER = re.compile(r"(\d+)_(.*)", re.DOTALL)
# Read here; and what says how to go about work that is done otherwise here, to the same end.
OF_SUBSETS = (
    "image_dir", "num_repeats", "caption_extension", "class_tokens", "is_reg", "caption_prefix",
    "caption_suffix", "flip_aug", "caption_dropout_rate",
)  # fmt: skip
OF_DATASETS = ("resolution", "batch_size", "enable_bucket")
SWITCHES = {"enable_bucket": "buckets", "flip_aug": "flip"}
NO_MATTER = ("cache_info", "subsets")
OF_SHUFFLING = ("keep_tokens", "keep_tokens_separator", "caption_separator")
SUBSETS_OF_TABLES = ("metadata_file", "conditioning_data_dir")


def kohya_folders(names: Sequence[str]) -> dict[str, told.Subset]:
    """Returns the subsets among folders of images, by their names: those that begin with a number.

    Raises:
        ValueError: If a number of repeats cannot be.
    """
    found = {name: match for name in names if (match := FOLDER.fullmatch(name))}
    for name, match in found.items():
        if len(match[1]) > 5 or not 1 <= int(match[1]) <= told.MOST_REPEATS:
            raise ValueError(
                f"the folder {printable(name)} has {match[1][:20]} repeats; a number of 1 to "
                f"{told.MOST_REPEATS} must stand before its '_'"
            )
    return {
        name: told.Subset(Path(name), int(match[1]), words=match[2].strip())
        for name, match in found.items()
    }


def read_kohya(path: Path) -> told.TrainerSettings:
    """Reads the TOML of `--dataset_config`.

    Raises:
        ValueError: If it is none, or asks for what cannot be.
    """
    settings, where = read_toml(path), path.name
    if "datasets" not in settings:
        raise ValueError(
            f"{where} has no [[datasets]]; what kohya's --dataset_config takes is read, and its "
            f"--config_file is not"
        )
    general = told.table(settings, "general", where)
    left = told.unused(settings, ("general", "datasets"))
    subsets: list[told.Subset] = []
    options: dict[str, list[Any]] = {}
    for dataset in told.tables(settings, "datasets", where):
        above = general | {k: v for k, v in dataset.items() if k != "subsets"}
        for given in told.tables(dataset, "subsets", f"a data set of {where}"):
            whole_set = above | given
            subsets.append(_subset(whole_set, path))
            for name, value in _options(whole_set, where).items():
                options.setdefault(name, []).append(value)
            left += _left_out(whole_set, where)
    remarks: list[str] = []
    taken = {name: told.largest(values, name, remarks) for name, values in options.items()}
    return told.TrainerSettings(
        NAME, tuple(dict.fromkeys(subsets)), taken, tuple(dict.fromkeys(left)), tuple(remarks)
    )


def _subset(given: Content, path: Path) -> told.Subset:
    where = path.name
    for name in SUBSETS_OF_TABLES:
        if name in given:
            raise ValueError(
                f"a subset of {where} has {name}; only folders of images with files of captions "
                "are read"
            )
    repeats = told.repeats_of(given, where)
    words = {
        name: told.text_of(given.get(name) or "", name, where)
        for name in ("class_tokens", "caption_prefix", "caption_suffix")
    }
    return told.Subset(
        told.folder_of(given.get("image_dir"), "image_dir", path),
        repeats,
        told.ending_of(given.get("caption_extension"), "caption_extension", where),
        words["class_tokens"],
        # kohya puts a space between.
        f"{words['caption_prefix']} " if words["caption_prefix"] else "",
        f" {words['caption_suffix']}" if words["caption_suffix"] else "",
        is_class=bool(given.get("is_reg", False)),
    )


def _options(given: Content, where: str) -> Content:
    found: Content = {
        ours: bool(given[theirs]) for theirs, ours in SWITCHES.items() if theirs in given
    }
    if "caption_dropout_rate" in given:
        found["caption_dropout"] = told.dropout_of(given, where)
    if "resolution" in given:
        found["resolution"] = told.squares(given["resolution"], found.get("buckets", False), where)
    if "batch_size" in given:
        found["batch_size"] = told.whole(given["batch_size"], "batch_size", where)
    return found


def _left_out(given: Content, where: str) -> list[str]:
    """What is set and says nothing here; how captions are shuffled matters where they are."""
    shuffles = bool(given.get("shuffle_caption"))
    known = (*OF_SUBSETS, *OF_DATASETS, *NO_MATTER, *(() if shuffles else OF_SHUFFLING))
    return told.unused(given, known)
