"""What strangers try on our servers: requests by hand, and a web page in a real browser."""

from __future__ import annotations

import base64
import http.client
import json
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

SOCKETS = ("/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled",
           "/work_pools/ddim/workers/connect")  # fmt: skip
PREFECT = Subprotocol("prefect")
# Each request of the page tells "refused" where it fails or tells nothing; a socket, where it
# never opens.
PAGE = """<script>
const [api, mlflow, password] = ARGUMENTS
const auth = {"authorization": "Basic " + btoa(password)}
const json = {"content-type": "application/json"}, text = {"content-type": "text/plain"}
const automation = JSON.stringify({name: "planted", trigger: {type: "event", posture: "Reactive",
  expect: ["x"], threshold: 1, within: 0}, actions: [{type: "do-nothing"}]})
const experiment = JSON.stringify({name: "planted"})
const told = {}
async function ask(name, url, given) {
  try { const answer = await fetch(url, given); told[name] = answer.type + " " + answer.status }
  catch (error) { told[name] = "refused" }
}
async function listen(name, url) {
  told[name] = await new Promise(done => {
    const socket = new WebSocket(url, ["prefect"])
    socket.onopen = () => done("open")
    socket.onerror = () => done("refused")
  })
}
async function all() {
  const filter = api + "/deployments/filter"
  await ask("read", api + "/admin/version", {})
  await ask("read with the password", api + "/admin/version", {headers: auth})
  await ask("json", filter, {method: "POST", headers: {...json, ...auth}, body: "{}"})
  await ask("text", filter, {method: "POST", headers: text, body: "{}"})
  await ask("untyped", filter, {method: "POST", body: new Blob(["{}"])})
  await ask("put", filter, {method: "PUT", headers: {...json, ...auth}, body: "{}"})
  await ask("mlflow read", mlflow + "/ajax-api/2.0/mlflow/experiments/search?max_results=9", {})
  for (const [name, headers] of [["json", json], ["text", text], ["none", {}]])
    await ask("mlflow " + name, mlflow + "/api/2.0/mlflow/experiments/create",
              {method: "POST", headers, body: name == "none" ? new Blob([experiment]) : experiment})
  const socket = api.replace("http", "ws")
  for (const path of SOCKETS) await listen(path, socket + path)
  // These tell the page nothing; whether something was planted is looked for afterwards.
  for (const [url, body] of [[api + "/automations/", automation],
                             [mlflow + "/api/2.0/mlflow/experiments/create", experiment]]) {
    await fetch(url, {method: "POST", mode: "no-cors", headers: text, body}).catch(() => 0)
    navigator.sendBeacon(url, body)
    navigator.sendBeacon(url, new Blob([body]))
  }
  await fetch("/told", {method: "POST", body: JSON.stringify(told)})
}
all()
</script>"""


def status(url: str, method: str = "GET", body: str | None = None, **headers: str) -> int:
    """The status of an answer to exactly these headers; `_` stands for `-` in their names."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.netloc, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, place.path, body, named)
        return connection.getresponse().status
    finally:
        connection.close()


def assert_closed_to_strangers(api: str, mlflow: str | None, auth: str) -> None:
    """By hand: no password, other names, other origins, plain text; and what must work does."""
    right = {"Authorization": f"Basic {base64.b64encode(auth.encode()).decode()}"}
    wrong = {"Authorization": f"Basic {base64.b64encode(b'ddim:guess').decode()}"}
    version, asked = f"{api}/admin/version", f"{api}/deployments/filter"
    own = api.removesuffix("/api")
    assert status(version, **right) == 200
    assert status(version, Origin=own, **right) == 200
    assert status(asked, "POST", "{}", **right, **{"Content-Type": "application/json"}) == 200
    assert [status(version), status(version, **wrong)] == [401, 401]
    places = [(own, "/api/admin/version"), (own, "/api/health"), (own, "/")]
    if mlflow:
        places += [(mlflow, p) for p in ("/health", "/", "/api/2.0/mlflow/experiments/search")]
    for server, path in places:
        for host in ("evil.example", "10.0.0.7:4200", "127.0.0.1.evil.example", "0.0.0.0", ""):
            assert status(f"{server}{path}", Host=host, **right) == 400, (path, host)
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1", "http://localhost",
                       server.replace("http", "https")):  # fmt: skip
            assert status(f"{server}{path}", Origin=origin, **right) == 403, (path, origin)
        assert status(f"{server}{path}", Sec_Fetch_Site="same-site", **right) == 403
    for kind in ("text/plain", "text/plain; charset=utf-8", "TEXT/PLAIN", "", "multipart/form-data",
                 "application/x-www-form-urlencoded"):  # fmt: skip
        assert status(asked, "POST", "{}", **right, Content_Type=kind) == 415, kind
    for path in SOCKETS:
        url = api.replace("http", "ws") + path
        with pytest.raises(InvalidStatus, match="403"):
            connect(url, subprotocols=[PREFECT], origin=Origin("http://evil.example"))
        with connect(url, subprotocols=[PREFECT]) as socket:
            socket.send(json.dumps({"type": "auth", "token": "ddim:guess"}))
            with pytest.raises(ConnectionClosedError, match="1008"):
                socket.recv(timeout=20)


def tried_by_a_page(api: str, mlflow: str, auth: str) -> dict[str, str]:
    """Opens a page of another origin in Chromium; returns what its requests came to, by name."""
    arguments = json.dumps([api, mlflow, auth])
    page = PAGE.replace("ARGUMENTS", arguments).replace("SOCKETS", json.dumps(SOCKETS))
    told: dict[str, str] = {}
    over = threading.Event()

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(page.encode() if self.path == "/" else b"")

        def do_POST(self) -> None:
            told.update(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self._say(b"")
            over.set()

        def _say(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        browser = subprocess.Popen(
            ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run",
             f"--user-data-dir={folder}/profile", f"http://localhost:{server.server_port}/"],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            assert over.wait(90), (Path(folder) / "log").read_text(errors="replace")[-2000:]
        finally:
            browser.terminate()
            browser.wait(20)
            server.shutdown()
    return told
