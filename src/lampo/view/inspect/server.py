"""A small server for one reader: the page, the index, a group, its comparisons. It never opens a path that a request names."""

from __future__ import annotations

import json
import sys
import threading
import webbrowser
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...types import LampoError
from .source import Source
from .viewer_page import SERVED_POLICY, content_policy, page

OWN_NAMES = {"127.0.0.1", "localhost"}


class ViewerServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1 only, and only to requests for it by that name.

        /                                    the page
        /api/index                           Source.index
        /api/group?place=12&number=3         Source.group
        /api/pairs?place=12&number=3         pairs.pairs, or null

    A page of another site may have its own name point to 127.0.0.1 and so read what is served here (DNS rebinding), but
    its requests carry that name as their Host, and are refused.

    Args:
        source: what is shown.
        port: 0 takes any that is free.

    Raises:
        LampoError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, source: Source, port: int = 0) -> None:
        self.source = source
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise LampoError(
                f"Port {port} cannot be had ({error.strerror}). Leave --port out to take a free one."
            ) from None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away before it was answered."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    def answer(self, path: str, query: dict[str, str]) -> Any:
        """What /api/... says, as plain data.

        Raises:
            KeyError: there is no such thing to ask, or an argument is missing.
            ValueError: an argument is no number.
            LampoError: see `Source.group`.
        """
        answers: dict[str, Callable[[], Any]] = {
            "/api/index": self.source.index,
            "/api/group": lambda: self.source.group(query["place"], int(query["number"])),
            "/api/pairs": lambda: group_pairs(self.source, query["place"], int(query["number"])),
        }
        return answers[path]()


def serve(source: Source, *, port: int = 0, step: int | None = None, browser: bool = True) -> None:
    """Serve until Ctrl-C, and open the browser.

    Raises:
        LampoError: the port is taken.
    """
    with ViewerServer(source, port) as server:
        url = server.url + ("" if step is None else f"#{step}/0")
        print(f"{source.path} at {url}  (Ctrl-C ends)", flush=True)
        if browser:
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def group_pairs(source: Source, place: str, number: int) -> dict[str, Any] | None:
    """The comparisons of a group as plain data; None where there are none."""
    if source.advantage is None:
        return None
    found = _pairs_module().pairs(source.group(place, number), source.advantage)
    return None if found is None else asdict(found)


def _pairs_module() -> Any:
    from . import pairs  # imports torch, which takes longer than all the rest, and only once there is something to read

    return pairs


class _Handler(BaseHTTPRequestHandler):
    server: ViewerServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in OWN_NAMES:
            self._send(403, "text/plain", "This server answers to 127.0.0.1 and localhost only.")
            return
        parts = urlsplit(self.path)
        if parts.path == "/":
            self._send(200, "text/html", page())
            return
        try:
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
            self._send(200, "application/json", json.dumps(self.server.answer(parts.path, query), ensure_ascii=False))
        except KeyError:
            self._send(404, "text/plain", "There is nothing here.")
        except ValueError:
            self._send(400, "text/plain", "The number of a group is a number.")
        except LampoError as error:
            self._send(404, "text/plain", str(error))

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode(errors="replace")
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": content_policy(SERVED_POLICY),
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the user's."""
