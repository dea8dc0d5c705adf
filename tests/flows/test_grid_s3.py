"""A grid whose DDIM_DATA is an S3 bucket: a real client, and moto's server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pandas as pd
import pytest
import s3fs
from grids import PROJECT, lasting, plain
from moto.server import ThreadedMotoServer

pytestmark = pytest.mark.timeout(300)
KEYS = {
    "AWS_ACCESS_KEY_ID": "any",
    "AWS_SECRET_ACCESS_KEY": "any",
    "AWS_DEFAULT_REGION": "us-east-1",
}
GRID = ("grid", "--no-sigma-hat", "--steps", "2,4", "--etas", "0", "--n-images", "25",
        "--shard-size", "10", "--features", "pixels")  # fmt: skip


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    """An S3 with the bucket `ddim`; what this process and its children find by the environment."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="ddim")
    yield s3fs.S3FileSystem(use_listings_cache=False, skip_instance_cache=True)
    server.stop()


def on_a_host(home: Path, *words: str) -> str:
    """Runs `ddim` as on a host that shares the bucket with others and nothing else."""
    env = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    env |= {"DDIM_DATA": "s3://ddim/data", "XDG_CACHE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *words], cwd=PROJECT, env=env, text=True,
        capture_output=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_grid_in_a_bucket_has_the_rows_of_a_local_one_and_is_shared_by_all_hosts(
    server: str, toy: str, run_grid, s3: s3fs.S3FileSystem, tmp_path: Path
) -> None:
    first = on_a_host(tmp_path / "one", *GRID, "--checkpoint", toy)
    assert "images drawn: 50 " in first
    files = s3.glob("ddim/data/results/cells/*.parquet")
    rows = plain(pd.concat([pd.read_parquet(s3.open(file)) for file in files]))
    assert lasting(rows) == lasting(run_grid(steps=[2, 4], etas=[0.0]).rows)
    (page,) = s3.glob("ddim/data/reports/*/index.html")
    assert f"s3://{page}" in first
    assert s3.ls("ddim/data/prefect")  # the records too, so that nothing is done on two hosts
    assert "images drawn: 0 " in on_a_host(tmp_path / "two", *GRID, "--checkpoint", toy)
