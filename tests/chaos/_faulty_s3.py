"""An HTTP proxy in front of an S3 server that does to requests what networks and object stores do on bad days.

    with FaultySite(endpoint, [Fault("error", 0.1), Fault("reset", 0.05, methods="GET")], seed=1) as site:
        ...                       # clients use site.endpoint
        site.expire_after(20)     # 20 requests later every request is refused, until site.renew()
        site.counts               # what was done: requests, error, reset, ..., expired

The server behind it does whatever reaches it, so "lost" is the nasty one: the request was carried out, nobody heard.
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

KINDS = ("error", "busy", "lost", "reset", "truncated", "slow")
"""500; 503; carried out without an answer; connection reset in the middle of the body; body that ends early; drip."""

_ERRORS = {"error": (500, "InternalError"), "busy": (503, "ServiceUnavailable"), "expired": (403, "ExpiredToken")}
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}
_DRIPS, _DRIP_S = 8, 0.1
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST instead of FIN."""


@dataclass(frozen=True)
class Fault:
    """One rule: a share of the requests that it is about suffers."""

    kind: str
    share: float
    """Of the requests, 0..1; rules are asked in their order, and the first that strikes is it."""
    methods: str = "GET HEAD PUT POST DELETE"
    containing: str = ""
    """Part of the path that a request must have."""


class FaultySite:
    """The proxy; a context manager.

    Args:
        target: endpoint of the S3 server, "http://host:port".
        faults: rules; may be replaced at any time.
        seed: of the dice.
    """

    def __init__(self, target: str, faults: Sequence[Fault] = (), seed: int = 0) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target = (host, int(port))
        self.faults = tuple(faults)
        self.counts: Counter[str] = Counter()
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._left: int | None = None
        site = self

        class Handler(_Handler):
            faulty = site

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def expire_after(self, requests: int) -> None:
        """Let so many more requests pass, and refuse the credentials of all that follow."""
        with self._lock:
            self._left = requests

    def renew(self) -> None:
        """Accept the credentials again."""
        with self._lock:
            self._left = None

    def draw(self, method: str, path: str) -> str:
        """Return what happens to a request, "" for nothing."""
        with self._lock:
            self.counts["requests"] += 1
            if self._left is not None:
                self._left -= 1
                if self._left < 0:
                    self.counts["expired"] += 1
                    return "expired"
            for fault in self.faults:
                if method in fault.methods and fault.containing in path and self._dice.random() < fault.share:
                    self.counts[fault.kind] += 1
                    return fault.kind
        return ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Say nothing: broken connections are the purpose."""


class _Handler(BaseHTTPRequestHandler):
    faulty: FaultySite
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        body = self._body()
        fate = self.faulty.draw(self.command, self.path)
        if fate in _ERRORS:
            self._refuse(*_ERRORS[fate])
            return
        status, headers, answer = self._forward(body)
        if fate == "lost" or (fate == "reset" and not answer):
            self._hang_up(reset=True)
            return
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP:
                self.send_header(name, value)
        # Of a HEAD, the length is that of the object.
        told = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", told or str(len(answer)))
        self.end_headers()
        if fate in ("reset", "truncated"):
            self._send(answer[: len(answer) // 2])
            self._hang_up(reset=fate == "reset")
        elif fate == "slow":
            step = max(1, len(answer) // _DRIPS)
            for start in range(0, len(answer), step):
                time.sleep(_DRIP_S)
                self._send(answer[start : start + step])
        else:
            self._send(answer)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - names that http.server looks for

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return b"".join(chunks)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(*self.faulty.target, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()

    def _refuse(self, status: int, code: str) -> None:
        answer = b"" if self.command == "HEAD" else _xml(code)
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self._send(answer)

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def _hang_up(self, reset: bool) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            # http.server would end it politely.
            self.connection.close()
            with contextlib.suppress(OSError):
                self.rfile.close()
            return
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


def _xml(code: str) -> bytes:
    said = {"ExpiredToken": "The provided token has expired."}.get(code, "We encountered an internal error.")
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{said}</Message>'
        f"<RequestId>0</RequestId></Error>"
    ).encode()
