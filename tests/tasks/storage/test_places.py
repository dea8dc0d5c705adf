"""DDIM_DATA is the place that its name says, or is refused before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.storage import places

REFUSED = {
    "s3:/foo": "write s3://foo",
    "s3:foo": "write s3://foo",
    "file:/tmp/x": "write file:///tmp/x",
    "~/x": "begins with ~, which a shell alone expands",
    "~": "begins with ~, which a shell alone expands",
    "~user/x": "begins with ~, which a shell alone expands",
    " ": "is blank, or begins or ends with blanks",
    " /tmp/x": "is blank, or begins or ends with blanks",
    "/tmp/x ": "is blank, or begins or ends with blanks",
    "/tmp/x\n": "blanks",
    "zip://x::/tmp/y": "has '::' in it",
    "simplecache::s3://b/x": "has '::' in it",
    "s3://bucket/a?b": "has '\\?' in it",
    "FILE:///tmp/x": "write file:///tmp/x",
    "S3://bucket": "write s3://bucket",
    "file://localhost/tmp/x": "write file:///tmp/x",
    "file://data": "names the host 'data'",
    "file://": "names no place",
    "file:///": "names no place",
    "s3://": "names no place",
    "s33://bucket/x": r"s33 is no store that is known \(did you mean s3\?\)",
    "://x": "names no store",
}


@pytest.mark.parametrize("url", REFUSED)
def test_an_address_that_would_lead_elsewhere_is_refused_with_what_is_right(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(places, "DATA_URL", url)
    with pytest.raises(ValueError, match=f"DDIM_DATA=.*{REFUSED[url]}"):
        places.require_usable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["data", "./a:b", "a b/c", "file://{}/x", "memory://bucket/data"])
def test_plain_places_are_used(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "DATA_URL", url.format(tmp_path))
    places.require_usable()
    if places.is_local():
        assert Path(places.data_url()).is_dir()
        assert Path(places.data_url()).is_relative_to(tmp_path)
