"""A local server with OpenAI's chat completions that misbehaves as it is told."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def completion(text: str | None, finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
    usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    ).encode()


class Server:
    """Answers as a plan says: by the text that is asked and the number of the attempt."""

    def __init__(self, plan: Callable[[str, int], Any]) -> None:
        self.requests: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self.told = self.shown = ""
        self._attempts: Counter[str] = Counter()
        self._lock, self._now = threading.Lock(), 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                text = body["messages"][-1]["content"]
                with outer._lock:
                    outer.requests.append(body)
                    outer.times.append(time.monotonic())
                    outer._now += 1
                    outer.most_at_once = max(outer.most_at_once, outer._now)
                    key = f"{text} {body['seed']}"
                    outer._attempts[key] += 1
                    attempt = outer._attempts[key]
                try:
                    self.answer(plan(text, attempt))
                except OSError:
                    pass  # the client has left
                finally:
                    with outer._lock:
                        outer._now -= 1

            def answer(self, what: Any) -> None:
                match what:
                    case bytes():
                        self.reply(200, what)
                    case int():
                        self.reply(what, b'{"error": {"message": "planned"}}')
                    case (int(status), bytes(body)):
                        self.reply(status, body)
                    case (int(status), str(after)):
                        self.reply(status, b"{}", {"Retry-After": after})
                    case ("hang", float(seconds)):
                        time.sleep(seconds)
                        self.reply(200, completion("late"))
                    case "cut":
                        self.send_response(200)
                        self.send_header("Content-Length", "1000")
                        self.end_headers()
                        self.wfile.write(b'{"id":')
                        self.close_connection = True
                    case "drop":
                        self.close_connection = True
                    case _:
                        raise AssertionError(what)

            def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


Start = Callable[[Callable[[str, int], Any]], Server]


@contextmanager
def chat_servers() -> Iterator[Start]:
    """Starts servers, and closes them at the end."""
    servers: list[Server] = []

    def start(plan: Callable[[str, int], Any]) -> Server:
        servers.append(Server(plan))
        return servers[-1]

    try:
        yield start
    finally:
        for server in servers:
            server.close()
