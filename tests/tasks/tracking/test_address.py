"""What MLflow's address tells of why nothing was logged."""

from __future__ import annotations

import pytest

from tasks.tracking.address import why_not_logged


@pytest.mark.parametrize(
    ("uri", "is_files"),
    [
        ("mlruns", True), ("/tmp/mlruns", True), ("./a b", True), ("file:/tmp/x", True),
        ("file:///tmp/x", True), ("FILE:///x", True), ("databricks", False),
        ("databricks://profile", False), ("databricks-uc", False), ("http://host:5000", False),
        ("sqlite:///x.db", False), ("uc:profile", False), ("my-plugin:place", False),
    ],
)  # fmt: skip
def test_a_file_store_is_a_path_or_a_file_address_alone(
    uri: str, is_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ("MLflow refuses file stores" in why_not_logged()) == is_files
