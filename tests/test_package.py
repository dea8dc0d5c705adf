"""The package: what it takes with it, and what only an extra does."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
OF_EXTRAS = {
    "boto3", "clean-fid", "dask", "distributed", "duckdb", "hypothesis", "ipykernel", "mkdocs",
    "moto", "mypy", "prefect-dask", "prefect-ray", "psycopg2-binary", "pytest", "pytorch-fid",
    "ray", "ruff", "s3fs", "timm",
}  # fmt: skip


def project() -> dict[str, object]:
    with (PROJECT / "pyproject.toml").open("rb") as file:
        return dict(tomllib.load(file)["project"])


def needed(asked: list[str]) -> set[str]:
    """All packages that installing these installs here, but for what is not installed."""
    found: set[str] = set()
    waiting = [(Requirement(text), "") for text in asked]
    while waiting:
        requirement, extra = waiting.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        for of in requirement.extras or {""}:
            if (key := f"{name}[{of}]") in found:
                continue
            found |= {key, name}
            try:
                more = metadata.requires(name) or []
            except metadata.PackageNotFoundError:
                continue
            waiting += [(Requirement(text), of) for text in more]
    return {name for name in found if not name.endswith("]")}


def test_the_core_takes_no_package_of_an_extra() -> None:
    core = needed(project()["dependencies"])  # type: ignore[arg-type]
    assert len(core) > 80
    assert core & OF_EXTRAS == set()


def test_every_package_that_is_asked_for_has_an_exact_version() -> None:
    told = project()
    extras: dict[str, list[str]] = told["optional-dependencies"]  # type: ignore[assignment]
    asked = [*told["dependencies"], *(text for each in extras.values() for text in each)]  # type: ignore[misc]
    pinned = {
        canonicalize_name(line.partition("==")[0])
        for line in (PROJECT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if re.match(r"[\w.-]+==[\w.]+$", line)
    }
    assert {canonicalize_name(Requirement(text).name) for text in asked} - pinned == set()
    assert {"gpu", "dask", "ray", "s3", "postgres", "docs", "test"} <= extras.keys()


def test_what_an_image_is_built_from_holds_every_file_of_the_package() -> None:
    let_in = (PROJECT / ".dockerignore").read_text(encoding="utf-8").split()
    folders = [PROJECT / line[1:] for line in let_in if line.startswith("!")]
    assert all(folder.exists() for folder in folders)
    below = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    for link in (path for path in below if path.is_symlink()):
        target = link.resolve()
        assert any(target.is_relative_to(folder) for folder in folders), f"{link} leads to {target}"
    assert not (PROJECT / "flows" / "servers" / "prefect.yaml").is_symlink()
