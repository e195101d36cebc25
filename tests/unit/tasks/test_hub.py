"""Whether the hub can be reached, asked before its clients try for half a minute."""

import os
import socket
from collections.abc import Iterator

import pytest
from huggingface_hub import constants

from lampo.model import pretrained
from lampo.tasks.hub import hub_failure


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in os.environ:
        if "proxy" in name.lower():
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub_failure.cache_clear()
    yield
    hub_failure.cache_clear()


def test_a_hub_that_answers_is_asked_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert hub_failure() is None
        assert not constants.is_offline_mode()


def test_where_none_answers_its_clients_look_into_their_cache_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert hub_failure() == "Connection refused"
    assert constants.is_offline_mode()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_behind_a_proxy_and_offline_it_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert hub_failure() is None
    monkeypatch.delenv("http_proxy")
    hub_failure.cache_clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_failure() is None


def test_only_a_model_that_is_not_on_the_disk_asks(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    asked: list[int] = []
    monkeypatch.setattr(pretrained, "hub_failure", lambda: asked.append(1))
    assert pretrained.resolve_path(str(tmp_path)) == str(tmp_path)
    assert asked == []
    assert pretrained.resolve_path("no/such") == "no/such"
    assert asked == [1]
