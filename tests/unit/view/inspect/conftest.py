"""A run, an evaluation, and a server that shows one of them."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lampo.evaluation.records import ProblemRecord, Records
from lampo.store.rollouts import write_shard
from lampo.types import Response, Verdict
from lampo.view.inspect.server import ViewerServer
from lampo.view.inspect.source import open_source

from ....helpers.recorded_groups import HOSTILE, groups_of
from ....helpers.viewer_client import Answer, ask_server


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "sums & more"
    (run / "rollouts").mkdir(parents=True)
    (run / "config.yaml").write_text("advantage: {name: pairwise, scale: group_std, temperature: 0.5}\n")
    for step in (1, 2, 3):
        write_shard(run, step, groups_of(step))
    return run


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    folder = tmp_path / "evaluation"
    for benchmark in ("aime24", "math500"):
        records = Records(folder / benchmark, {"model": "small"})
        for number in range(2):
            responses = (Response(HOSTILE, 7, True), Response("5", None, False))
            verdicts = (Verdict("right", "4", score=0.5), Verdict("unknown", detail="timed out"))
            records.add(ProblemRecord(f"{benchmark}/{number}", "2 + 2?", "4", responses, verdicts))
    return folder


@pytest.fixture
def ask(request: pytest.FixtureRequest) -> Iterator[Any]:
    folder = request.getfixturevalue(getattr(request, "param", "run"))
    with ViewerServer(open_source(folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def get(path: str, host: str | None = None, method: str = "GET", *, token: str | None = server.token) -> Answer:
            return ask_server(server, path, host, method, token)

        get.server = server  # pyright: ignore[reportFunctionMemberAccess]
        yield get
        server.shutdown()
        thread.join()
