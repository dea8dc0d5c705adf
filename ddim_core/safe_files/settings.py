"""Settings beside a checkpoint: JSON or YAML read as plain values, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ddim_core.common.plain_files import PlainFileError, parse_json, read_bytes, require_plain

LONGEST = 2**24  # bytes of JSON; a schedule of a million given betas is no longer
LONGEST_YAML = 2**18  # which is read a hundred times slower

# The official DDIM code dumps its settings as argparse.Namespace objects: read as mappings.
NAMESPACE = "tag:yaml.org,2002:python/object:argparse.Namespace"
MERGE = "tag:yaml.org,2002:merge"
TUPLE = "tag:yaml.org,2002:python/tuple"


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
