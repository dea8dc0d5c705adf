"""A grid whose DDIM_DATA is an S3 bucket: a real client, and moto's server on loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pandas as pd
import pytest
import s3fs
from moto.server import ThreadedMotoServer

from tasks.checkpoints import memory
from tasks.storage import places
from tasks.storage.caching import RECORDS
from tests.flows.grids import GridRun, lasting, plain

pytestmark = pytest.mark.timeout(300)
KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket that the environment leads to."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    boto3.client("s3").create_bucket(Bucket="ddim")
    yield "s3://ddim/data"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_grid_in_a_bucket_has_the_rows_of_a_local_one_and_is_shared_by_all_hosts(
    run_grid: Callable[..., GridRun], bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = lasting(run_grid(seed=801).rows)
    monkeypatch.setattr(places, "DATA_URL", bucket)
    monkeypatch.setattr(RECORDS, "url", places.data_url("prefect"))
    drawn = []
    for host in ("one", "two"):  # two hosts share the bucket, and nothing on their disks
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / host))
        memory.forget()
        run = run_grid(seed=801)
        drawn.append(run.result.images_drawn)
    assert drawn == [50, 0]
    assert run.computed == {}
    there = s3fs.S3FileSystem(use_listings_cache=False)
    files = there.glob("ddim/data/results/cells/*.parquet")
    assert lasting(plain(pd.concat([pd.read_parquet(there.open(file)) for file in files]))) == local
    assert run.result.report.removeprefix("s3://") in there.glob("ddim/data/reports/*/index.html")
