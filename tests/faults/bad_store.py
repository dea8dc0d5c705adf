"""An object store that does not answer, refuses, or returns damaged bytes.

    python -m tests.faults.bad_store slow | refuse | damage | gone

The store is moto's S3 on loopback; a proxy before it makes the faults, at every so-manieth
request, once the grid is under way.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pandas as pd
from moto.server import ThreadedMotoServer

from tests.faults.harness import N_CELLS, N_IMAGES, Place, places, same, say, wait_until

TIMEOUT_SECONDS = 3  # of our client, where it is told so
EVERY = {"slow": 23, "refuse": 3, "damage": 5}
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


@dataclass
class Faults:
    """What goes wrong: one kind at a time, and how often it has."""

    kind: str = ""
    n_requests: int = 0
    n_faults: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> str:
        with self.lock:
            self.n_requests += 1
            if self.kind == "gone" or (self.kind and self.n_requests % EVERY[self.kind] == 0):
                self.n_faults += 1
                return self.kind
        return ""


def proxy(target: int, faults: Faults) -> ThreadingHTTPServer:
    """Returns a server on loopback that passes requests on, or not."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = faults.next()
            if fault == "slow":
                time.sleep(3 * TIMEOUT_SECONDS)
            if fault in ("slow", "gone"):
                self.close_connection = True
                return
            if fault == "refuse":
                self.answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
                return
            there = http.client.HTTPConnection("127.0.0.1", target)
            there.request(self.command, self.path, body, dict(self.headers.items()))
            response = there.getresponse()
            content = response.read()
            if fault == "damage" and self.command == "GET" and content and response.status < 300:
                content = content[:-1] + bytes([content[-1] ^ 1])
            headers = {k: v for k, v in response.getheaders() if k.lower() not in HOP_BY_HOP}
            if self.command == "HEAD":
                headers["Content-Length"] = response.getheader("Content-Length") or "0"
            self.answer(response.status, headers, content)

        def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if "Content-Length" not in headers:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_one  # noqa: N815

        def log_message(self, format: str, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@contextmanager
def stores() -> Iterator[tuple[dict[str, str], dict[str, str], Faults]]:
    """A local S3; yields the environment that finds it directly, by the proxy, and its faults."""
    moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    moto.start()
    _, port = moto.get_host_and_port()
    faults = Faults()
    server = proxy(port, faults)
    keys = {
        "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1",
        "FSSPEC_S3": json.dumps({"config_kwargs": {"read_timeout": TIMEOUT_SECONDS}}),
    }  # fmt: skip
    direct = keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    by_proxy = keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}
    client = boto3.client(
        "s3", endpoint_url=direct["AWS_ENDPOINT_URL"], aws_access_key_id="x",
        aws_secret_access_key="y", region_name="us-east-1",
    )  # fmt: skip
    client.create_bucket(Bucket="ddim")
    yield direct, by_proxy, faults
    server.shutdown()
    moto.stop()


class RemotePlace(Place):
    """A place whose DDIM_DATA is in the object store."""

    @property
    def rows_there(self) -> pd.DataFrame:
        import s3fs

        there = s3fs.S3FileSystem(
            endpoint_url=self.more["DIRECT"], key="x", secret="y", use_listings_cache=False
        )
        files = there.glob("ddim/data/results/cells/*.parquet")
        return pd.concat([pd.read_parquet(there.open(file)) for file in files], ignore_index=True)


def main(kind: str) -> None:
    with places(f"store-{kind}") as (place, undisturbed), stores() as (direct, by_proxy, faults):
        there = RemotePlace(place.folder, place.checkpoint, place.more).told(
            **by_proxy, DDIM_DATA="s3://ddim/data", DIRECT=direct["AWS_ENDPOINT_URL"],
            XDG_CACHE_HOME=str(place.folder / "cache"),
        )  # fmt: skip
        assert isinstance(there, RemotePlace)
        process = there.grid()
        wait_until(lambda: faults.n_requests > 120, "the grid under way")
        faults.kind = kind
        if kind == "gone":
            time.sleep(20)
            code = process.wait(400)
            say(f"the store went away for good: exit code {code}: {there.last_words()[:400]}")
            assert code != 0
            faults.kind = ""
        else:
            code = process.wait(500)
            say(f"{faults.n_faults} of {faults.n_requests} requests went wrong ({kind}); exit code "
                f"{code}: {there.last_words()[:300]}")  # fmt: skip
            faults.kind = ""
        drawn = there.whole_grid()
        say(f"the next run, with a sound store, drew {drawn} of {N_CELLS * N_IMAGES} images")
        table = there.rows_there.drop(columns=["sample_seconds", "images_per_second", "created_at"])
        same(table.sort_values("cell_digest", ignore_index=True), undisturbed)


if __name__ == "__main__":
    main(sys.argv[1])
