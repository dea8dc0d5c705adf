"""Settings, as of a checkpoint or a team: JSON, YAML or TOML read as plain values alone."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

from ddim_core.common.foreign import Content
from ddim_core.common.plain_files import (
    PlainFileError,
    parse_json,
    read_bytes,
    require_plain,
    shown_name,
)

LONGEST = 2**24  # bytes of JSON; a schedule of a million given betas is no longer
LONGEST_YAML = LONGEST_TOML = 2**18  # which are read a hundred times slower
MOST_DIGITS = 100  # of a number of YAML: to base 60 (1:59:59) a time that grows with their square
# As do the parts of a name of TOML: a.a.a.a
PART = r"""(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
MANY_PARTS = re.compile(rf"(?<![A-Za-z0-9_-])(?>{PART}[ \t]*+\.[ \t]*+){{32}}")

# The official DDIM code dumps its settings as argparse.Namespace objects: read as mappings.
NAMESPACE = "tag:yaml.org,2002:python/object:argparse.Namespace"
MERGE = "tag:yaml.org,2002:merge"
TUPLE = "tag:yaml.org,2002:python/tuple"
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML, where the two tags above are a mapping and a list, and nothing stands for what is
    elsewhere: aliases and merge keys make gigabytes, or hours, of a kilobyte."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has aliases (*name), which settings do not need")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        if any(key.tag == MERGE for key, _ in node.value):
            raise yaml.YAMLError("it has a merge key (<<), which settings do not need")

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag in NUMBERS and len(node.value) > MOST_DIGITS:
            raise yaml.YAMLError(f"it has a number of {len(node.value)} digits; {MOST_DIGITS} do")
        return super().construct_scalar(node)


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


def _sequence(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    assert isinstance(node, yaml.SequenceNode)
    return loader.construct_sequence(node, deep=True)


_PlainLoader.add_constructor(NAMESPACE, _mapping)
_PlainLoader.add_constructor(TUPLE, _sequence)


def read_settings(path: Path) -> dict[str, Any]:
    """Returns the settings in a JSON or YAML file.

    Raises:
        ValueError: If it is neither, absurdly long or deep, no regular file, or no mapping of
            names.
    """
    where = f"{path.parent.name}/{path.name}"
    is_json = path.suffix == ".json"
    try:
        data = read_bytes(path, LONGEST if is_json else LONGEST_YAML)
        settings = parse_json(data, where) if is_json else parse_yaml(data.decode("utf-8"), where)
    except PlainFileError as error:
        raise ValueError(f"{where} are no settings: {error}") from error
    except UnicodeDecodeError as error:
        kind = "JSON" if is_json else "plain YAML"
        raise ValueError(f"{where} is not {kind}: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{where} is a {type(settings).__name__}; it must be a mapping of names")
    return settings


def parse_yaml(text: str, where: str) -> Any:
    """Returns the plain values of a YAML text without aliases and merge keys.

    Raises:
        ValueError: If it is no such YAML, or longer than settings are.
    """
    if len(text) > LONGEST_YAML:
        raise ValueError(f"{where} has {len(text)} characters; at most {LONGEST_YAML} are read")
    try:
        found = yaml.load(text, Loader=_PlainLoader)
    except (
        ValueError, yaml.YAMLError, AssertionError, RecursionError, LookupError, TypeError,
        AttributeError, ArithmeticError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{where} is not plain YAML: {reason[:500]}") from error
    require_plain(found, where)
    return found


def read_toml(path: Path) -> Content:
    """Returns the settings in a TOML file; a byte order mark is no part of it.

    Raises:
        ValueError: If it is none, absurdly long or deep, or no regular file.
    """
    where = shown_name(path)
    try:
        text = read_bytes(path, LONGEST_TOML).decode("utf-8-sig")
        if MANY_PARTS.search(text):
            raise ValueError("a name has more than 32 parts")
        found = tomllib.loads(text)
    except PlainFileError:  # names it
        raise
    except OSError as error:
        raise ValueError(f"{where} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError, ArithmeticError, LookupError) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"{where} is no TOML: {reason[:200]}") from error
    require_plain(found, where)
    return found
