"""Where a worker keeps results: asked of a cluster before work is sent there."""

from __future__ import annotations

from prefect import task

from tasks.storage import places


@task(name="where-results-lie", persist_result=False)
def where_results_lie() -> str:
    """Returns the DDIM_DATA of the process that runs this."""
    return places.data_url()
