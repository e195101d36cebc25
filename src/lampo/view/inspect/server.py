"""A small server for one reader: the page, the index, a group, its comparisons. It never opens a path that a request names."""

from __future__ import annotations

import secrets
import sys
import threading
import webbrowser
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...types import LampoError
from .source import Source
from .viewer_page import SERVED_POLICY, as_json, content_policy, page

PATIENCE_S = 1.0
"""How long a page waits for an index of what has to be read. Then it shows what has been read, and asks again."""
OWN_NAMES = {"127.0.0.1", "localhost"}
NO_TOKEN = "This address needs its token. Open the one that lampo inspect printed, which holds ?token=..."


class NoNumberError(LampoError):
    """A request with something else where a number belongs."""


class ViewerServer(ThreadingHTTPServer):
    """Answers on 127.0.0.1 only, and only to requests for it by that name that know its token.

        /?token=...                          the page
        /open/CODE                           the same, once: it leads to the address above
        /api/index?place=12                  Source.index, where step 12 is read first
        /api/group?place=12&number=3         Source.group
        /api/pairs?place=12&number=3         pairs.pairs, or null

    Other users of the machine can reach the port too, but do not know the token. The page sends it in the header
    Authorization. The address may hold it everywhere. Other users see the arguments of a browser that is started, so it is
    given a code that leads to the token once.

    A page of another site may have its own name point to 127.0.0.1 and so read what is served here (DNS rebinding), but
    its requests carry that name as their Host, and are refused.

    Args:
        source: what is shown.
        port: 0 takes any that is free.

    Raises:
        LampoError: the port is taken.
    """

    daemon_threads = True
    request_queue_size = 128  # with the default of 5 a burst of requests is refused

    def __init__(self, source: Source, port: int = 0) -> None:
        self.source = source
        self.token = secrets.token_urlsafe(16)
        self._code: str | None = None
        self._lock = threading.Lock()
        self._index: tuple[object, bytes] | None = None
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
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def url(self) -> str:
        """Where the page is, for those who may read it."""
        return f"{self.address}?token={self.token}"

    def url_for_once(self) -> str:
        """An address that leads to `url` once."""
        self._code = secrets.token_urlsafe(16)
        return f"{self.address}open/{self._code}"

    def knows(self, given: str | None) -> bool:
        """Whether that is the token."""
        return secrets.compare_digest((given or "").encode(errors="replace"), self.token.encode())

    def takes(self, path: str) -> bool:
        """Whether that is the path of `url_for_once`, asked for the first time."""
        with self._lock:
            taken = self._code is not None and secrets.compare_digest(
                path.encode(errors="replace"), f"/open/{self._code}".encode()
            )
            self._code = None if taken else self._code
        return taken

    def answer(self, path: str, query: dict[str, str]) -> bytes:
        """What /api/... says, as JSON.

        Raises:
            NoNumberError: the number of the group is none.
            LampoError: there is no such thing to ask, or an argument is missing; see also `Source.group`.
        """
        if path == "/api/index":
            return self._index_as_json(query.get("place"))
        what = {"/api/group": self.source.group, "/api/pairs": lambda *group: group_pairs(self.source, *group)}.get(
            path
        )
        place, number = query.get("place"), query.get("number")
        if what is None or place is None or number is None:
            raise LampoError("There is nothing here.")
        try:
            count = int(number)
        except ValueError:
            raise NoNumberError("The number of a group is a number.") from None
        return _encoded(what(place, count))

    def _index_as_json(self, first: str | None) -> bytes:
        """Made once for all who ask, and again when a file has changed or been read: of 100,000 rollouts it has 6 MB."""
        with self._lock:
            stamp = self.source.stamp()
            if self._index is None or self._index[0] != stamp:
                self._index = stamp, _encoded(self.source.index(first, PATIENCE_S))
            return self._index[1]


def serve(source: Source, *, port: int = 0, step: int | None = None, browser: bool = True) -> None:
    """Serve until Ctrl-C, and open the browser.

    Raises:
        LampoError: the port is taken.
    """
    with ViewerServer(source, port) as server:
        place = "" if step is None else f"#{step}/0"
        print(f"{source.path} at {server.url}{place}  (Ctrl-C ends)", flush=True)
        if browser:
            threading.Thread(target=webbrowser.open, args=(server.url_for_once() + place,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever()


def _encoded(value: Any) -> bytes:
    return as_json(value).encode(errors="replace")


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
            self._say(403, "This server answers to 127.0.0.1 and localhost only.")
            return
        try:
            parts = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        except ValueError:  # http://[
            self._say(400, "This is no address.")
            return
        if self.server.takes(parts.path):
            self._send(302, "text/plain", b"", {"Location": f"/?token={self.server.token}"})
        elif not self.server.knows(query.get("token") or self.headers.get("Authorization", "").removeprefix("token ")):
            self._say(403, NO_TOKEN)
        elif parts.path == "/":
            self._send(200, "text/html", page().encode())
        else:
            self._answer(parts.path, query)

    def _answer(self, path: str, query: dict[str, str]) -> None:
        try:
            body = self.server.answer(path, query)
        except NoNumberError as error:
            self._say(400, str(error))
        except LampoError as error:
            self._say(404, str(error))
        except Exception as error:  # a damaged group: the page shows what it was, and the others go on
            self._say(500, f"This group cannot be shown ({type(error).__name__}: {error}).")
        else:
            self._send(200, "application/json", body)

    def _say(self, status: int, text: str) -> None:
        self._send(status, "text/plain", text.encode(errors="replace"))

    def _send(self, status: int, kind: str, body: bytes, more: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(body)),
            "Content-Security-Policy": content_policy(SERVED_POLICY),
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            **(more or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal is the user's."""
