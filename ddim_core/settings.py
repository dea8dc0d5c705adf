"""Settings beside a checkpoint: JSON or YAML read as plain values, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

LONGEST = 2**24  # bytes; a schedule of a million given betas is no longer

# The official DDIM code dumps its settings as argparse.Namespace objects: read as mappings.
NAMESPACE = "tag:yaml.org,2002:python/object:argparse.Namespace"
TUPLE = "tag:yaml.org,2002:python/tuple"


class _PlainLoader(yaml.SafeLoader):
    """Safe YAML, where the two tags above are a mapping and a list."""


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
        ValueError: If it is neither, absurdly long, or no mapping of names.
    """
    where = f"{path.parent.name}/{path.name}"
    if path.stat().st_size > LONGEST:
        raise ValueError(f"{where} is {path.stat().st_size} bytes long; settings are not")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".json":
            settings = json.loads(text)
        else:
            settings = yaml.load(text, Loader=_PlainLoader)
    except (ValueError, yaml.YAMLError, AssertionError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "plain YAML"
        raise ValueError(f"{where} is not {kind}: {' '.join(str(error).split())}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{where} is a {type(settings).__name__}; it must be a mapping of names")
    return settings
