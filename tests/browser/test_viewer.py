"""The rollout viewer in a real browser."""

import itertools
import json
import math
import random
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lampo.evaluation.records import ProblemRecord, Records
from lampo.store.rollouts import shard_path, write_shard
from lampo.types import LampoError, Response, Verdict
from lampo.view.inspect.export import export
from lampo.view.inspect.server import ViewerServer
from lampo.view.inspect.source import open_source

from ..helpers.recorded_groups import group, groups_of, rollout
from .conftest import poke, script, until

CONFIG = "advantage: {name: pairwise, scale: group_std}\nloss: {surrogate: token, clip_low: 0.2, clip_high: 0.28}\n"


@pytest.fixture
def serve() -> Iterator[Callable[[Path], ViewerServer]]:
    running: list[tuple[ViewerServer, threading.Thread]] = []

    def start(folder: Path) -> ViewerServer:
        server = ViewerServer(open_source(folder))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def new_run(folder: Path) -> Path:
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = new_run(tmp_path / "sums")
    for step in (1, 2, 3):
        write_shard(run, step, groups_of(step))
    return run


def heading(page: Any) -> str:
    return page.locator("main h2").first.inner_text()


def wait_for(page: Any, text: str) -> None:
    until(page, "text => document.querySelector('main h2')?.textContent === text", text)


def listed(page: Any) -> list[str]:
    return [row.inner_text().split(" · ")[2].split("\n")[0] for row in page.locator(".row").all()]


def test_a_step_and_a_group_are_chosen(run: Path, serve: Any, tab: Any) -> None:
    server = serve(run)
    page = tab(server.url)
    wait_for(page, "Step 1, group 1")
    assert page.title() == "sums · LamPO rollouts"
    assert page.locator("#kind").inner_text() == "LamPO run · 3 steps · 6 groups"
    page.select_option("#place", "2")
    wait_for(page, "Step 2, group 1")
    assert listed(page) == ["mixed-2", "hard-2"]
    page.locator(".row").nth(1).click()
    wait_for(page, "Step 2, group 2")
    assert page.url == f"{server.url}#2/1"
    page.reload()  # the address alone says which
    wait_for(page, "Step 2, group 2")
    assert page.locator('.row[aria-selected="true"]').inner_text().startswith("step 2 · 2 · hard-2")
    page.evaluate("location.hash = '#3/0'")
    wait_for(page, "Step 3, group 1")
    page.fill("#search", "HARD-3")
    wait_for(page, "Step 3, group 2")
    assert listed(page) == ["hard-3"]
    page.fill("#search", "nowhere")
    assert page.locator("main").inner_text() == "No group is like that. 0 clears the filters."


def test_filters_hold_together_and_sorting_orders(run: Path, serve: Any, tab: Any) -> None:
    page = tab(serve(run).url)
    wait_for(page, "Step 1, group 1")
    counts = {button.inner_text() for button in page.locator("#filters button").all()}
    assert counts == {
        "all wrong3",
        "all right0",
        "right and wrong3",
        "unknown verdicts3",
        "cut at the limit3",
        "no reward spread3",
    }
    page.get_by_role("button", name="all wrong").click()
    assert listed(page) == ["hard-1", "hard-2", "hard-3"]
    assert page.locator("#filters output").inner_text() == "3 of 6 groups"
    page.get_by_role("button", name="cut at the limit").click()
    assert listed(page) == []
    page.get_by_role("button", name="all wrong").click()
    assert listed(page) == ["mixed-1", "mixed-2", "mixed-3"]
    page.get_by_role("button", name="cut at the limit").click()
    page.select_option("#sort", label="lowest reward")
    assert listed(page)[:3] == ["hard-1", "hard-2", "hard-3"]
    page.select_option("#sort", label="largest |advantage|")
    assert listed(page)[:3] == ["mixed-1", "mixed-2", "mixed-3"]


def test_every_key(run: Path, serve: Any, tab: Any) -> None:
    page = tab(serve(run).url)
    press = page.keyboard.press
    wait_for(page, "Step 1, group 1")
    for key, shown in (
        ("j", "Step 1, group 2"), ("ArrowDown", "Step 2, group 1"), ("k", "Step 1, group 2"), ("ArrowUp", "Step 1, group 1"),
        ("k", "Step 1, group 1"), ("G", "Step 3, group 2"), ("j", "Step 3, group 2"), ("g", "Step 1, group 1"),
    ):  # fmt: skip
        press(key)
        wait_for(page, shown)
    page.focus("#list")
    press("End")
    wait_for(page, "Step 3, group 2")
    press("Home")
    wait_for(page, "Step 1, group 1")

    focused = "document.activeElement.getAttribute('aria-label')"
    for key, label in (("n", 1), ("n", 2), ("n", 3), ("n", 3), ("p", 2), ("p", 1)):  # in the order that is shown
        press(key)
        assert page.evaluate(focused) == f"Text of response {label}"
    press("ArrowRight")
    assert page.locator("#readout").inner_text().startswith("token 1 of 2 · ")
    press("ArrowRight")
    assert "token 2 of 2" in page.locator("#readout").inner_text()
    assert "log-prob −2.000 · probability 13.5 %" in page.locator("#readout").inner_text()
    press("ArrowLeft")
    assert "token 1 of 2" in page.locator("#readout").inner_text()
    colouring = "document.querySelector('#responses [aria-checked=true]').textContent"
    assert page.evaluate(colouring) == "probability"
    press("t")
    assert page.evaluate(colouring) == "no colour"  # there are no ratios in this run
    press("t")
    assert page.evaluate(colouring) == "probability"

    page.wait_for_selector("td.pair")
    quantity = "document.querySelector('#pairs [aria-checked=true]').textContent"
    for name in ("contribution", "weight", "reward gap", "contribution"):
        assert page.evaluate(quantity) == name
        press("m")

    press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    page.keyboard.type("j2")  # letters are text there
    assert page.input_value("#search") == "j2"
    press("Escape")
    assert page.evaluate("document.activeElement.id") != "search"
    page.fill("#search", "")
    page.locator("#list").focus()
    pressed = "[...document.querySelectorAll('#filters [aria-pressed=true]')].map(each => each.firstChild.textContent)"
    names = ("all wrong", "all right", "right and wrong", "unknown verdicts", "cut at the limit", "no reward spread")
    for key, name in zip("123456", names, strict=True):
        press(key)
        assert page.evaluate(pressed) == [name]
        press(key)
        assert page.evaluate(pressed) == []
    press("1")
    press("6")
    press("0")
    assert page.evaluate(pressed) == []
    for label in ("largest |advantage|", "largest spread", "lowest reward", "longest", "in order"):
        press("s")
        assert page.evaluate("document.getElementById('sort').selectedOptions[0].textContent") == label
    write_shard(run, 4, groups_of(4))
    press("r")
    until(page, "document.getElementById('kind').textContent.includes('8 groups')")
    press("?")
    assert page.locator("#help").is_visible()
    before = page.url
    press("j")
    assert page.url == before  # nothing else happens under it
    press("Escape")
    assert not page.locator("#help").is_visible()


@contextmanager
def held_back(server: ViewerServer, monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[None]:
    """The server answers so many questions for the index, and the others at the end."""
    answer, asked, end = server.answer, itertools.count(), threading.Event()

    def slow(path: str, query: dict[str, str]) -> bytes:
        if path == "/api/index" and next(asked) >= after:
            end.wait(20)
        return answer(path, query)

    monkeypatch.setattr(server, "answer", slow)
    yield
    end.set()


def test_keys_do_nothing_before_there_is_an_index(
    run: Path, serve: Any, tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(run)
    with held_back(server, monkeypatch, after=0):
        page = tab(server.url)
        for key in "jkgGnptms01r":
            page.keyboard.press(key)
        page.fill("#search", "hard-1")
    wait_for(page, "Step 1, group 2")


def test_the_pairs(run: Path, serve: Any, tab: Any) -> None:
    page = tab(serve(run).url)
    page.wait_for_selector("td.pair")
    table = [
        [cell.inner_text() for cell in row.locator("td.pair").all()] for row in page.locator("#pairs tbody tr").all()
    ]
    # R = 1, 0 and unknown; s = -0.1 and -0.9, which differ by tau (auto), so w = sigmoid(1) and sigmoid(-1)
    assert [len(row) for row in table] == [3, 3, 3]
    assert (table[0][0], table[0][2], table[2][0]) == ("·", "–", "–")
    scale = 0.5**0.5 + 1e-4  # the standard deviation of 1 and 0
    assert table[0][1] == f"+{1 / (1 + math.exp(-1)) / scale:.3f}"
    assert table[1][0] == f"−{1 / (1 + math.exp(1)) / scale:.3f}"
    assert (
        page.locator(".said").inner_text().startswith("The strongest pair, #1 against #2: reward gap +1.000 × weight ")
    )
    cell = page.locator('[data-row="0"][data-column="0"]')
    cell.focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".said").inner_text().startswith("#1 against #2: ")
    page.keyboard.press("ArrowDown")
    assert page.locator(".said").inner_text() == ""  # itself
    page.keyboard.press("ArrowLeft")
    assert page.locator(".said").inner_text().startswith("#2 against #1: ")
    page.locator('[data-row="0"][data-column="2"]').hover()
    assert page.locator(".said").inner_text() == "#3 has no reward and takes no part."
    ends = [
        head.inner_text() for head in page.locator("#pairs thead th").all() if not head.inner_text().startswith("vs")
    ]
    assert ends == [
        "rollout",
        "reward",
        "mean log-prob",
        "LamPO",
        "GRPO",
        "RLOO",
        "used",
    ]  # the recorded ones are invented
    page.get_by_role("radio", name="reward gap").click()
    assert [cell.inner_text() for cell in page.locator("#pairs tbody tr").first.locator("td.pair").all()] == [
        "·",
        "+1.00",
        "–",
    ]
    page.locator("#pairs tbody a").nth(1).click()
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "Text of response 2"


def test_it_is_readable_on_a_phone_and_in_the_dark(run: Path, serve: Any, tab: Any, looks_right: Any) -> None:
    many = [rollout("right" if at % 3 else "wrong", -0.1 * at, advantage=at / 8 - 1) for at in range(20)]
    long = group(4, "x" * 300, *many)
    long["problem"] |= {"prompt": "unbroken" * 100, "answer": "9" * 500, "reference": "r " * 300}
    write_shard(run, 4, [long])
    shard_path(run, 5).mkdir()
    server = serve(run)
    page = tab(f"{server.url}#1/0")
    page.wait_for_selector("td.pair")
    assert str(shard_path(run, 5)) in page.locator("#complaints").inner_text()
    looks_right(page)
    page.evaluate("location.hash = '#4/0'")
    wait_for(page, "Step 4, group 1")
    page.wait_for_selector("table.dense")
    page.locator("summary").click()
    looks_right(page)
    page.keyboard.press("?")
    looks_right(page)


def hostile_group(step: int) -> dict[str, Any]:
    def hostile(status: str, **changes: Any) -> dict[str, Any]:
        values = {"text": script("text"), "extracted": script("extracted"), "detail": script("detail")}
        rewards = {"verifier": 1.0, script("reward"): 0.5}
        return rollout(status, -0.3, **(values | {"rewards": rewards} | changes))

    tokens = hostile("right", advantage=1.0, ratios=[1.5, 0.9], pieces=[3, len(script("text")) - 3])
    made = group(step, script("id"), tokens, hostile("wrong", pieces=None), hostile("unknown", pieces=None))
    made["problem"] |= {"prompt": script("prompt"), "answer": script("answer"), "reference": script("reference")}
    return made


PLACES = ("id", "prompt", "answer", "reference", "text", "extracted", "detail", "reward")


def test_no_script_of_a_models_runs(tmp_path: Path, serve: Any, tab: Any) -> None:
    run = new_run(tmp_path / "<img src=x onerror=ran('title')>")
    (run / "config.yaml").write_text("advantage: {name: \"<img src=x onerror=ran('estimator')>\"}\n")
    write_shard(run, 1, [hostile_group(1)])
    write_shard(run, 2, [group(2, "<svg onload=ran('error')>", rollout("right", 10**400))])  # pyright: ignore[reportArgumentType]
    shard_path(run, 3).symlink_to("<img src=x onerror=ran('complaint')>")
    page = tab(serve(run).url, expected=("status of 500",))
    page.wait_for_selector("td.pair")
    poke(page)
    shown = page.locator("body").inner_text()
    assert [
        place for place in PLACES if script(place) not in " ".join(shown.split()) and script(place) not in shown
    ] == []
    for text in ("onerror=ran('title')", "onerror=ran('estimator')", "onerror=ran('complaint')"):
        assert text in shown
    page.keyboard.press("n")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("t")
    page.fill("#search", "ran('error')")
    wait_for(page, "Step 2, group 1")
    until(page, "document.getElementById('pairs')?.textContent.includes('cannot be shown')")
    poke(page)

    file = tmp_path / "mail.html"
    (run / "rollouts" / "000002.jsonl.gz").unlink()
    export(open_source(run), file)
    page = tab(file.as_uri())
    page.wait_for_selector("td.pair")
    poke(page)
    assert script("text") in page.locator("#responses").text_content()


def test_an_evaluation_and_no_script_of_its_runs(tmp_path: Path, serve: Any, tab: Any, looks_right: Any) -> None:
    records = Records(tmp_path / "evaluation" / "<img src=x onerror=ran('place')>", {})
    responses = (Response(script("text"), 7, True), Response("5", None, False))
    verdicts = (Verdict("right", script("extracted"), score=0.5), Verdict("unknown", detail=script("detail")))
    records.add(ProblemRecord(script("id"), script("prompt"), script("answer"), responses, verdicts))
    page = tab(serve(tmp_path / "evaluation").url)
    page.wait_for_selector("#responses")
    poke(page)
    shown = page.locator("body").inner_text()
    assert "LamPO evaluation · 1 benchmark · 1 problem" in shown
    assert [place for place in PLACES if place not in ("reference", "reward") and script(place) not in shown] == []
    assert page.locator("#pairs").count() == 0
    assert page.get_by_role("button", name="no reward spread").count() == 0
    looks_right(page)


TRAINERS = Path(__file__).parents[1] / "data" / "trainers"


def heads(page: Any) -> list[str]:
    texts = [head.inner_text() for head in page.locator("#pairs thead th").all()]
    return [text for text in texts if not text.startswith("vs")]


def test_a_run_of_trl(serve: Any, tab: Any, looks_right: Any) -> None:
    page = tab(serve(TRAINERS / "trl-1.16.0" / "evaluated").url)
    page.wait_for_selector("td.pair")
    assert page.locator("#kind").inner_text() == "TRL run · 2 steps · 6 groups"
    assert "right by accuracy_reward 3 of 4" in " ".join(page.locator(".facts").inner_text().split())
    assert page.locator("main > .note").inner_text() == (
        "TRL's table has no log-probs: LamPO's weights and advantages cannot be told."
    )
    assert heads(page) == ["rollout", "reward", "GRPO (used)", "RLOO"]
    assert [each.inner_text() for each in page.locator("#pairs [role=radio]").all()] == ["reward gap"]
    for _ in range(2):
        page.keyboard.press("m")
    assert page.locator(".said").inner_text().startswith("The strongest pair, #2 against #3: reward gap +1.1")
    first = page.locator("article").first.inner_text()
    assert "accuracy reward 1" in " ".join(first.split())
    assert "cut at the length limit" not in page.locator("#responses").inner_text()
    assert page.get_by_role("button", name="cut at the limit").count() == 0
    page.keyboard.press("5")
    page.keyboard.press("3")
    assert page.locator("#filters output").inner_text() == "4 of 6 groups"
    looks_right(page)


def test_a_run_of_verl_with_log_probs_and_no_script_of_its_runs(tmp_path: Path, serve: Any, tab: Any) -> None:
    lines = [json.loads(line) for line in (TRAINERS / "verl-0.9.1-log-probs" / "1.jsonl").read_text().splitlines()]
    told = {"input": script("prompt"), "gts": script("answer"), "pred": script("extracted"), script("reward"): 0.5}
    lines = [line | told | {"output": script("text"), "more": script("detail")} for line in lines[:4]]
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = tab(serve(tmp_path).url)
    page.wait_for_selector("td.pair")
    poke(page)
    shown = page.locator("body").inner_text()
    assert [
        place for place in PLACES if place not in ("id", "reference", "detail") and script(place) not in shown
    ] == []
    assert heads(page) == ["rollout", "reward", "mean log-prob", "LamPO", "GRPO", "RLOO"]
    assert "The highest reward first." in shown


def test_the_page_reads_on_while_it_is_used(
    tmp_path: Path, serve: Any, tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in range(1, 41):
        shutil.copy(TRAINERS / "verl-0.9.1" / "1.jsonl", tmp_path / f"{step}.jsonl")
    monkeypatch.setattr("lampo.view.inspect.server.PATIENCE_S", 0)
    server = serve(tmp_path)
    with held_back(server, monkeypatch, after=1):
        page = tab(f"{server.url}#33/1")
        wait_for(page, "Step 33, group 2")
        assert "reading" in page.locator("#kind").inner_text()
    page.select_option("#place", "38")
    wait_for(page, "Step 38, group 1")
    until(page, "document.getElementById('kind').textContent === 'verl run · 40 steps · 160 groups'")
    assert heading(page) == "Step 38, group 1"
    assert page.locator(".go span").inner_text() == "1 of 4 shown"
    assert page.locator('.row[aria-selected="true"]').inner_text().startswith("step 38 · 1 · ")


def test_a_hundred_thousand_rollouts(tmp_path: Path, serve: Any, tab: Any) -> None:
    run, numbers = new_run(tmp_path / "large"), random.Random(0)
    for step in range(1, 101):
        made = []
        for number in range(125):
            right = [numbers.random() < 0.4 for _ in range(8)]
            rollouts = [rollout("right" if each else "wrong", -0.5, text="7 or so of it") for each in right]
            made.append(group(step, f"{step}-{number}", *rollouts))
        write_shard(run, step, made)
    page = tab(serve(run).url)
    wait_for(page, "Step 1, group 1")
    assert page.locator("#kind").inner_text() == "LamPO run · 100 steps · 12,500 groups"
    assert page.locator(".row").count() < 60  # only those in sight exist, here
    page.keyboard.press("G")
    wait_for(page, "Step 100, group 125")
    assert page.locator("main .go span").inner_text() == "12,500 of 12,500 shown"
    assert page.locator(".row").count() < 60  # and there
    page.keyboard.press("1")
    page.fill("#search", "50-1")
    until(page, "document.querySelector('#filters output').textContent.endsWith('of 12,500 groups')")
    page.fill("#search", "77-123")
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    wait_for(page, "Step 77, group 124")
    page.fill("#search", "")
    page.evaluate("document.getElementById('list').scrollTop = 6000 * 60")
    until(page, "document.querySelector('.row:nth-child(8)')?.textContent.includes('step 49')")


def test_what_goes_wrong_is_said_in_the_page(run: Path, serve: Any, tab: Any) -> None:
    server = serve(run)
    page = tab(server.url, expected=("status of 403", "status of 404"))
    wait_for(page, "Step 1, group 1")
    server.token = "another"  # as after a restart
    page.keyboard.press("r")
    page.wait_for_selector("#complaints:not([hidden])")
    assert "The viewer does not answer: This address needs its token." in page.locator("#complaints").inner_text()
    page = tab(server.address, expected=("status of 403",))
    assert "needs its token" in page.locator("body").inner_text()


def test_what_the_server_says_of_a_failure_is_text(
    run: Path, serve: Any, tab: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, failing = serve(run), {"/api/pairs"}
    answer = server.answer

    def failing_answer(path: str, query: dict[str, str]) -> bytes:
        if path in failing:
            raise LampoError(script(path))
        return answer(path, query)

    monkeypatch.setattr(server, "answer", failing_answer)
    page = tab(server.url, expected=("status of 404",))
    wait_for(page, "Step 1, group 1")
    for path, key, shown in (
        ("/api/pairs", "g", "#pairs"),
        ("/api/group", "j", "#group [role=alert]"),
        ("/api/index", "r", "#complaints:not([hidden])"),
    ):
        failing.add(path)
        page.keyboard.press(key)
        until(page, f"document.querySelector('{shown}')?.textContent.includes({json.dumps(script(path))})")


def test_the_address_for_the_browser_leads_to_the_group(run: Path, serve: Any, tab: Any) -> None:
    server = serve(run)
    page = tab(f"{server.url_for_once()}#2/1")
    wait_for(page, "Step 2, group 2")
    assert page.url == f"{server.url}#2/1"
