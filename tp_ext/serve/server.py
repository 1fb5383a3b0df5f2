"""An HTTP server of completions and of the page over them, for one person's look at their models."""

from __future__ import annotations

import hmac
import ipaddress
import json
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tp_ext.errors import ConfigError, UserError
from tp_ext.infer import LanguageModel
from tp_ext.serve.completion import Completion, read_request
from tp_ext.serve.view import view

REQUEST_BYTES = 1 << 20
SECONDS = 30
"""How long the server waits for the rest of a request."""


class Server(ThreadingHTTPServer):
    """Serves `models` by name at `host` and `port` (0: any that is free). One completion of a model runs at a time."""

    daemon_threads = True

    def __init__(self, models: Mapping[str, LanguageModel], host: str, port: int, token: str | None) -> None:
        """Raises ConfigError when others could reach the server and no token is asked of them."""
        if not is_loopback(host) and not token:
            raise ConfigError(f"--host {host}: others can reach the server there; set a token, or keep 127.0.0.1")
        if token is not None and not (token.isascii() and token.isprintable()):
            raise ConfigError("a token is made of letters, digits and signs of ASCII, which a header can hold")
        self.models = models
        self.token = token
        self.locks = {name: threading.Lock() for name in models}
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(f"cannot listen at {host}:{port} ({error.strerror})") from None

    @property
    def url(self) -> str:
        """Where the page is."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether a name or address is this machine's own, which others cannot reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SECONDS
    server: Server

    def do_GET(self) -> None:
        """The page, and the list of models."""
        if self.path.split("?")[0] == "/":
            self._send(HTTPStatus.OK, view(list(self.server.models), bool(self.server.token)).encode(), "text/html")
            return
        self._answer(self._list if self.path == "/v1/models" else self._nothing)

    def do_POST(self) -> None:
        """A completion."""
        self._answer(self._complete if self.path == "/v1/completions" else self._nothing)

    def _answer(self, what: Any) -> None:
        try:
            self._check_caller()
            what()
        except _Refused as error:
            self._refuse(error.status, str(error))
        except UserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # who asked has gone

    def _check_caller(self) -> None:
        """Refuse who does not know the token and, where there is none, pages of other sites in this machine's browser."""
        if self.server.token:
            given = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.server.token.encode()):
                raise _Refused(HTTPStatus.UNAUTHORIZED, "a token is needed: Authorization: Bearer TOKEN")
            return
        host = self.headers.get("Host", "").rsplit(":", 1)[0].strip("[]")
        origin = self.headers.get("Origin")
        if not is_loopback(host) or (origin is not None and origin.rstrip("/") != f"http://{self.headers.get('Host')}"):
            raise _Refused(HTTPStatus.FORBIDDEN, "only this machine's own page and programs are answered")

    def _nothing(self) -> None:
        raise _Refused(HTTPStatus.NOT_FOUND, f"nothing at {self.path}; there are /, /v1/models and POST /v1/completions")

    def _list(self) -> None:
        models = [{"id": name, "object": "model", "created": 0, "owned_by": "tp_ext"} for name in self.server.models]
        self._send_json(HTTPStatus.OK, {"object": "list", "data": models})

    def _complete(self) -> None:
        asked = read_request(self._read())
        model = self.server.models.get(asked.model)
        if model is None:
            known = ", ".join(self.server.models)
            raise _Refused(HTTPStatus.NOT_FOUND, f"no model named '{asked.model}'. Known: {known}")
        completion = Completion(asked, model)
        with self.server.locks[asked.model]:
            if asked.stream:
                self._stream(completion)
            else:
                self._send_json(HTTPStatus.OK, completion.whole())

    def _read(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > REQUEST_BYTES:
            self.close_connection = True
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"a request has a length, of at most {REQUEST_BYTES} bytes")
        try:
            values = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise ConfigError("the request is not JSON") from None
        if not isinstance(values, dict):
            raise ConfigError("the request is not a JSON object")
        return values

    def _stream(self, completion: Completion) -> None:
        """Server-sent events, as https://html.spec.whatwg.org/multipage/server-sent-events.html describes them."""
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for chunk in completion.chunks():
            self.wfile.write(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode())
            self.wfile.flush()
        self.wfile.write(b"data: [DONE]\n\n")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        kind = "authentication_error" if status == HTTPStatus.UNAUTHORIZED else "invalid_request_error"
        self.close_connection = True  # what was sent with the request may not have been read
        self._send_json(status, {"error": {"message": message, "type": kind, "param": None, "code": None}})

    def _send_json(self, status: HTTPStatus, values: Mapping[str, Any]) -> None:
        self._send(status, json.dumps(values, ensure_ascii=False).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing of requests."""
