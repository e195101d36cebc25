"""A reader of the viewer's server: what it answers to a path."""

import http.client
import json
from typing import Any

from lampo.view.inspect.server import ViewerServer

Answer = tuple[int, str, dict[str, str]]


def ask_server(server: ViewerServer, path: str, host: str | None, method: str, token: str | None) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=20)
    headers = ({} if host is None else {"Host": host}) | ({} if token is None else {"Authorization": f"token {token}"})
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()


def told(ask: Any, path: str) -> Any:
    status, body, _ = ask(path)
    assert status == 200, body
    return json.loads(body)
