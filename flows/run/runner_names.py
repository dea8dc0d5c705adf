"""Where tasks may run, by name; apart from Prefect, so that a wrong name is refused at once."""

from __future__ import annotations

from importlib.util import find_spec

from ddim_core.common.checks import require_at_least, require_choice

RUNNERS = ("threads", "processes", "dask", "ray")
NEEDS = {"dask": "prefect_dask", "ray": "prefect_ray"}  # extras of these names


def require_runner(runner: str, workers: int | None) -> None:
    """Makes sure that a runner can be.

    Raises:
        ValueError: If there is none of this name, its packages are missing, or it has workers of
            its own and a number was given.
    """
    name, address = parts_of(runner)
    require_choice("runner", name, RUNNERS)
    if address and name not in NEEDS:
        raise ValueError(f"runner is {runner!r}; only dask and ray take an address")
    if name in NEEDS and not find_spec(NEEDS[name]):
        raise ValueError(
            f"runner is {runner!r}, whose packages are not here; pip install 'ddim-flows[{name}]'"
        )
    if workers is not None:
        require_at_least("workers", workers, 1)
        if address:
            raise ValueError(f"workers is {workers}, but the cluster at {address!r} has its own")


def is_elsewhere(runner: str) -> bool:
    """Tells whether tasks run on other machines than the flow, perhaps."""
    return bool(parts_of(runner)[1])


def parts_of(runner: str) -> tuple[str, str]:
    """`dask:tcp://host:8786` -> `dask` and `tcp://host:8786`."""
    name, _, address = runner.partition(":")
    return name, address
