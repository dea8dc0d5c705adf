"""Reports are read alone, for the password, and nothing else of DDIM_DATA is."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from flows.servers.reports_server import app
from flows.servers.serve import _where
from tasks.machine.same_origin import SameOrigin
from tasks.reports.page import linked
from tasks.storage import places

AUTH = ("ddim", "sécret:with a colon")


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(places, "DATA_URL", str(tmp_path))
    monkeypatch.setenv("DDIM_REPORTS_AUTH", ":".join(AUTH))
    page = tmp_path / "reports" / "0123456789ab" / "index.html"
    page.parent.mkdir(parents=True)
    page.write_text("a page")
    (tmp_path / "prefect-password").write_text("secret")
    (page.parent / "link").symlink_to(tmp_path / "prefect-password")
    return TestClient(SameOrigin(app(), ["127.0.0.1"]), base_url="http://127.0.0.1")


def test_a_page_is_read_with_the_password_alone(client: TestClient) -> None:
    place = "/0123456789ab/index.html"
    assert client.get(place, auth=AUTH).text == "a page"
    assert client.get("/0123456789ab/", auth=AUTH).text == "a page"
    for wrong in (None, ("ddim", "guess"), ("ddim", "")):
        answer = client.get(place, auth=wrong)
        assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
        assert "a page" not in answer.text
    assert client.get("/health").text == "ok"


def test_the_front_page_is_there_before_any_report_of_this_code(client: TestClient) -> None:
    front = client.get("/", auth=AUTH)
    assert (front.status_code, "All reports" in front.text) == (200, True)
    assert 'href="0123456789ab/index.html"' in front.text


def test_reports_in_an_object_store_are_served_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "DATA_URL", "s3://bucket/data")
    said = _where("http://127.0.0.1:4200/api", "http://127.0.0.1:5000", "", "ddim:secret")
    assert "Reports  lie in s3://bucket/data/reports; " in said


def test_nothing_is_changed_and_nothing_outside_of_reports_is_read(client: TestClient) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = client.request(method, "/0123456789ab/index.html", auth=AUTH, json={})
        assert answer.status_code == 405
    for path in ("/..%2fprefect-password", "/%2e%2e/prefect-password", "/0123456789ab/link"):
        assert client.get(path, auth=AUTH).status_code == 404, path
    of_a_page = {"origin": "http://evil.example"}
    assert client.get("/health", headers=of_a_page).status_code == 403
    assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_artifacts_link_to_a_page_where_reports_are_served(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = places.data_url("reports", "0123456789ab", "index.html")
    monkeypatch.delenv("DDIM_REPORTS_URL", raising=False)
    assert linked(place) == f"`{place}`"
    monkeypatch.setenv("DDIM_REPORTS_URL", "http://127.0.0.1:4300")
    assert "(http://127.0.0.1:4300/0123456789ab/index.html)" in linked(place)
