from collections.abc import Iterator

import pytest

from ..helpers import warm


@pytest.fixture(scope="session", autouse=True)
def fork_servers() -> Iterator[None]:
    with warm.fork_servers():
        yield
