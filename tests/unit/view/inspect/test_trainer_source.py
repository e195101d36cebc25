"""Rollouts that TRL and verl wrote, in the viewer: tests/helpers/trainer_dumps.py makes the files."""

from __future__ import annotations

import contextlib
import json
import math
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from lampo.types import LampoError
from lampo.view.inspect.export import export
from lampo.view.inspect.server import ViewerServer, group_pairs
from lampo.view.inspect.source import Source, open_source
from lampo.view.inspect.trainer_source import TrainerSource

TRAINERS = Path(__file__).parents[3] / "data" / "trainers"
TRL = TRAINERS / "trl-1.16.0"
VERL = TRAINERS / "verl-0.9.1"
OLDER_VERL = TRAINERS / "verl-0.9.1-log-probs"
LAMPO_IN_VERL = TRAINERS / "verl-0.9.1-lampo"


def compared(source: Source, place: str, number: int) -> dict[str, Any]:
    found = group_pairs(source, place, number)
    assert found is not None
    return found


def column(group: dict[str, Any], name: str) -> list[Any]:
    return [rollout[name] for rollout in group["rollouts"]]


# TRL -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["trl-1.0.0", "trl-1.16.0"])
def test_trl_tables_are_groups_with_rewards_and_advantages_as_used(version: str) -> None:
    source = open_source(TRAINERS / version / "one-reward")
    index = source.index()
    assert [index[key] for key in ("kind", "trainer", "verdict", "places", "unread", "complaints")] == [
        "run",
        "TRL",
        "accuracy_reward",
        ["1", "2"],
        0,
        [],
    ]
    assert [len(line["verdicts"]) for line in index["groups"]] == [4] * 6
    group = source.group("1", 0)
    assert group["problem"]["prompt"] == "3+8="
    assert column(group, "text")[0] == "ewhhd7i+ #2lik"
    assert column(group, "status") == ["right", "right", "wrong", "right"]
    assert column(group, "total") == [1, 1, 0, 1]
    assert group["rollouts"][0]["rewards"] == {"accuracy_reward": 1.0, "num_letters": 14.0}
    assert group["rollouts"][0]["detail"] == "first_letters: ew"
    for place, number in ((line["place"], line["number"]) for line in index["groups"]):
        group = source.group(place, number)
        found = group_pairs(source, place, number)
        assert found is not None
        assert found["grpo_G"] == pytest.approx(column(group, "advantage"), abs=1e-4)
        assert (found["weights_GG"], found["pairwise_G"]) == (None, None)
        assert found["gaps_GG"][0][0] is None
        assert group["notes"] == ["TRL's table has no log-probs: LamPO's weights and advantages cannot be told."]


def test_a_response_that_nobody_could_judge_is_shown_as_its_trl_took_it() -> None:
    now, before = (open_source(TRAINERS / name / "one-reward").group("1", 1) for name in ("trl-1.16.0", "trl-1.0.0"))
    assert column(now, "status") == column(before, "status") == ["wrong", "right", "right", "unknown"]
    assert column(now, "total")[3] is None
    assert column(before, "total")[3] == 0
    assert before["rollouts"][3]["detail"] == "TRL counted it as 0 · first_letters: ag"


@pytest.mark.parametrize("version", ["trl-1.0.0", "trl-1.16.0"])
def test_the_sum_of_rewards_is_confirmed_by_the_advantages_or_said_to_be_a_sum(version: str) -> None:
    plain, weighted = (open_source(TRAINERS / version / name).group("1", 0) for name in ("evaluated", "weighted"))
    assert len(plain["notes"]) == 1
    assert weighted["notes"][1] == (
        "TRL's table has no weights of rewards. The reward shown is the plain sum of accuracy_reward and figures_reward, "
        "and TRL's advantages do not follow from it."
    )
    for group in (plain, weighted):
        names = ("accuracy_reward", "figures_reward")
        sums = [sum(rollout["rewards"][name] for name in names) for rollout in group["rollouts"]]
        assert column(group, "total") == pytest.approx(sums)


def test_conversations_are_texts(tmp_path: Path) -> None:
    group = open_source(TRL / "weighted").group("1", 0)
    assert group["problem"]["prompt"] == "3+8="
    assert column(group, "text")[1] == "ovyb=a9.i5ed\n?3"


@pytest.mark.parametrize("path", ["", "completions", "completions/completions_00002.parquet"])
def test_trl_is_opened_by_output_dir_folder_or_table(path: str) -> None:
    places = open_source(TRL / "evaluated" / path).index()["places"]
    assert places == (["2"] if path.endswith("parquet") else ["1", "2"])


@pytest.fixture
def trl_run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TRL / "evaluated", tmp_path / "run"))


def table(run: Path, step: int) -> Path:
    return run / "completions" / f"completions_{step:05d}.parquet"


def rewrite(file: Path, **columns: Any) -> None:
    """Change columns of a table that TRL wrote; None leaves one out."""
    old = pyarrow.parquet.read_table(file).to_pydict() | columns
    pyarrow.parquet.write_table(pyarrow.table({name: value for name, value in old.items() if value is not None}), file)


def test_a_damaged_table_is_named_and_the_others_are_shown(trl_run: Path, tmp_path: Path) -> None:
    table(trl_run, 1).write_bytes(table(trl_run, 1).read_bytes()[:-20])
    shutil.copy(table(trl_run, 2), table(trl_run, 3))
    rewrite(table(trl_run, 3), completion=None)
    table(trl_run, 4).mkdir()
    source = open_source(trl_run)
    index = source.index()
    assert {line["place"] for line in index["groups"]} == {"2"}
    cut, other, folder = index["complaints"]
    assert cut.startswith(f"{table(trl_run, 1)} cannot be read (")
    assert other == f"{table(trl_run, 3)} is no table of completions: it has no column completion"
    assert folder.startswith(f"{table(trl_run, 4)} cannot be read (")
    assert index["verdict"] == "accuracy_reward"
    assert export(source, tmp_path / "page.html") == 3


def test_a_damaged_row_is_named_and_the_others_are_shown(trl_run: Path) -> None:
    prompts = pyarrow.parquet.read_table(table(trl_run, 1))["prompt"].to_pylist()
    rewrite(table(trl_run, 1), prompt=[None, *prompts[1:]])
    index = open_source(trl_run).index()
    assert index["complaints"] == [
        f"{table(trl_run, 1)}, row 1: no prompt (a text or messages are expected, and this is NoneType)"
    ]
    assert [len(line["verdicts"]) for line in index["groups"]] == [3, 4, 4, 4, 4, 4]


def test_a_response_that_cannot_be_read_is_said_beside_its_numbers(trl_run: Path) -> None:
    texts = pyarrow.parquet.read_table(table(trl_run, 1))["completion"].to_pylist()
    rewrite(table(trl_run, 1), completion=[None, *texts[1:]])
    first, second, *_ = open_source(trl_run).group("1", 0)["rollouts"]
    assert first["detail"].startswith("the response cannot be read (a text or messages are expected")
    assert (first["text"], second["text"]) == ("", texts[1])


def test_whatever_bytes_are_damaged_it_opens(trl_run: Path, verl_run: Path) -> None:
    numbers = random.Random(0)
    for file in (table(trl_run, 1), verl_run / "rollouts" / "1.jsonl"):
        whole = file.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(numbers.choice([1, 3, 30])):
                damaged[numbers.randrange(len(damaged))] = numbers.randrange(256)
            file.write_bytes(damaged)
            source = open_source(trl_run if file.suffix == ".parquet" else verl_run)
            for line in source.index()["groups"]:
                with contextlib.suppress(LampoError):
                    source.group(line["place"], line["number"])


def test_tables_without_rewards_or_advantages_say_so(trl_run: Path) -> None:
    lacking = dict.fromkeys(["accuracy_reward", "figures_reward", "first_letters", "num_letters", "advantage"])
    rewrite(table(trl_run, 1), **lacking)
    source = open_source(trl_run)
    group = source.group("1", 0)
    assert group["notes"] == ["This table has no rewards.", "This table has no advantages."]
    assert column(group, "status") == ["unknown"] * 4
    assert group_pairs(source, "1", 0) is None


def test_without_pyarrow_it_says_what_to_install(trl_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    complaints = open_source(trl_run).index()["complaints"]
    assert complaints[0] == "TRL's tables are Parquet files, for which pyarrow is needed: pip install pyarrow"


def test_two_groups_of_one_prompt_beside_each_other_are_two(trl_run: Path) -> None:
    rewrite(table(trl_run, 1), prompt=[*["3+8="] * 4, *["1+1="] * 8])
    again = open_source(trl_run).index()["groups"][:3]
    assert [line["prompt"] for line in again] == ["3+8=", "1+1=", "1+1="]
    assert [len(line["verdicts"]) for line in again] == [4, 4, 4]


def test_a_table_that_is_written_anew_is_read_anew(trl_run: Path) -> None:
    source = open_source(trl_run)
    before, stamp = source.index(), source.stamp()
    assert source.stamp() == stamp
    table(trl_run, 2).unlink()
    shutil.copy(TRL / "one-reward" / "completions" / table(trl_run, 2).name, table(trl_run, 2))
    assert source.stamp() != stamp
    assert source.index()["groups"][:3] == before["groups"][:3]
    assert source.group("2", 0)["rollouts"][0]["rewards"].keys() == {"accuracy_reward", "num_letters"}
    table(trl_run, 2).unlink()
    assert source.index()["places"] == ["1"]
    with pytest.raises(LampoError, match="no group 0 in step 2"):
        source.group("2", 0)


# verl ----------------------------------------------------------------------------------------------------------------


def test_verl_dumps_are_groups_by_uid() -> None:
    source = open_source(VERL)
    index = source.index()
    assert (index["trainer"], index["verdict"], index["places"], index["complaints"]) == ("verl", None, ["1", "2"], [])
    lines = [json.loads(line) for line in (VERL / "1.jsonl").read_text().splitlines()]
    assert [line["verdicts"] for line in index["groups"]] == ["nnnn"] * 8
    assert index["groups"][0]["id"] == lines[0]["uid"][:8]
    group = source.group("1", 0)
    assert group["problem"]["answer"] == "0"
    assert column(group, "text") == [line["output"] for line in lines[:4]]
    assert column(group, "total") == [line["score"] for line in lines[:4]]
    assert column(group, "advantage") == [None] * 4
    assert len(group["notes"]) == 2
    found = compared(source, "1", 0)
    assert found["pairwise_G"] is None
    assert sum(found["rloo_G"]) == pytest.approx(0, abs=1e-6)


def test_verl_dumps_with_log_probs_are_compared_in_full() -> None:
    source = open_source(OLDER_VERL)
    index = source.index()
    assert index["verdict"] == "acc"
    assert {len(line["verdicts"]) for line in index["groups"]} == {4}
    group = source.group("2", 1)
    rollout = group["rollouts"][0]
    assert rollout["length"] == len(rollout["logprobs"]) > 0
    assert rollout["score"] == pytest.approx(math.fsum(rollout["logprobs"]) / rollout["length"])
    assert rollout["rewards"].keys() == {"acc", "figures"}
    assert rollout["extracted"] == rollout["text"][:3]
    found = compared(source, "2", 1)
    assert found["note"] == "These are rollouts of verl: the comparisons are those of LamPO with its default options."
    assert [sum(value or 0 for value in row) for row in found["contributions_GG"]] == pytest.approx(
        found["pairwise_G"], abs=1e-6
    )
    assert group["notes"] == ["verl writes no advantages down: what was used is not shown."]


def test_verl_dumps_of_lampo_say_all_that_a_run_of_our_own_does() -> None:
    source = open_source(LAMPO_IN_VERL)
    assert source.index()["verdict"] == "acc"
    unknown = 0
    for number in range(4):
        group = source.group("1", number)
        assert group["notes"] == []
        assert compared(source, "1", number)["pairwise_G"] == pytest.approx(column(group, "advantage"), abs=1e-5)
        for rollout in group["rollouts"]:
            assert rollout["length"] == len(rollout["logprobs"]) > 0
            if rollout["status"] == "unknown":
                unknown += 1
                assert rollout["rewards"].keys() == {"acc", "overlong"}
                assert rollout["detail"] == "tests.verl.judge.unclear could not tell"
            else:
                assert rollout["rewards"].keys() == {"acc", "verifier", "overlong"}
    assert unknown > 0


@pytest.fixture
def verl_run(tmp_path: Path) -> Path:
    shutil.copytree(VERL, tmp_path / "verl" / "rollouts")
    return tmp_path / "verl"


def test_verl_is_opened_by_folder_by_the_folder_above_rollouts_or_by_file(verl_run: Path) -> None:
    for path, places in (
        (verl_run, ["1", "2"]),
        (verl_run / "rollouts", ["1", "2"]),
        (verl_run / "rollouts" / "2.jsonl", ["2"]),
    ):
        source = open_source(path)
        assert isinstance(source, TrainerSource)
        assert source.index()["places"] == places


def test_a_damaged_line_is_named_and_the_others_are_shown(verl_run: Path) -> None:
    file = verl_run / "rollouts" / "1.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    lines[1:4] = ["[" * 100_000 + "\n", '{"input": "1", "output": "2"}\n', '{"input": 1, "output": "2", "score": 0}\n']
    file.write_text("".join(lines)[:-30])
    (verl_run / "rollouts" / "3.jsonl").mkdir()
    source = open_source(verl_run)
    index = source.index()
    assert [complaint.partition(": ")[2].split(" (")[0] for complaint in index["complaints"]] == [
        "not a rollout",
        "not a rollout",
        "not a rollout",
        "1 more lines cannot be read",
        "Is a directory",
    ]
    assert "it has no 'score'" in index["complaints"][1]
    assert [len(line["verdicts"]) for line in index["groups"]] == [1, 4, 4, 3, 4, 4, 4, 4]
    file.write_text("{}\n" * 20)
    with pytest.raises(LampoError):
        source.group("1", 0)


def test_a_group_in_which_one_response_has_no_log_probs_says_so(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in (OLDER_VERL / "1.jsonl").read_text().splitlines()]
    lines[0]["old_log_probs"][0] = None
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    source = open_source(tmp_path)
    assert source.group("1", 0)["notes"][0].startswith("Log-probs are missing (a column old_log_probs)")
    assert compared(source, "1", 0)["weights_GG"] is None
    assert compared(source, "1", 1)["weights_GG"] is not None


def test_what_nobody_could_judge_has_no_reward(verl_run: Path) -> None:
    file = verl_run / "rollouts" / "1.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["score"], lines[1]["score"] = 2.0**-100, math.nan
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    group = open_source(verl_run).group("1", 0)
    assert column(group, "total")[:2] == [None, None]
    assert column(group, "status") == ["unknown", "unknown", "none", "none"]


# Both ----------------------------------------------------------------------------------------------------------------


def test_a_folder_of_neither_is_refused_with_what_each_would_look_like(tmp_path: Path) -> None:
    (tmp_path / "completions").mkdir()
    (tmp_path / "1.jsonl").write_text('{"prompt": "1+1="}\n')
    with pytest.raises(
        LampoError, match=r"completions_00001\.parquet .* log_completions=True.*trainer\.rollout_data_dir"
    ):
        open_source(tmp_path)


def test_a_page_need_not_wait_until_all_is_read(tmp_path: Path) -> None:
    for step in range(1, 31):
        shutil.copy(VERL / "1.jsonl", tmp_path / f"{step}.jsonl")
    source = open_source(tmp_path)
    index = source.index("17", 0)
    assert (len(index["places"]), index["unread"], {line["place"] for line in index["groups"]}) == (30, 29, {"17"})
    assert source.group("29", 0)["place"] == "29"
    assert source.index("17", 0)["unread"] == 27
    assert (source.index()["unread"], len(source.index()["groups"])) == (0, 120)


def test_the_server_reads_on_each_time_it_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in range(1, 4):
        shutil.copy(VERL / "1.jsonl", tmp_path / f"{step}.jsonl")
    monkeypatch.setattr("lampo.view.inspect.server.PATIENCE_S", 0)
    with ViewerServer(open_source(tmp_path)) as server:
        unread = [json.loads(server.answer("/api/index", {"place": "3"}))["unread"] for _ in range(4)]
        assert unread == [2, 1, 0, 0]


def test_the_export_of_a_step_reads_that_step_alone(tmp_path: Path) -> None:
    source = open_source(TRL / "one-reward")
    assert export(source, tmp_path / "page.html", step=2) == 3
    assert source.index(None, 0)["unread"] == 0


def test_a_run_of_our_own_is_one_whatever_else_lies_in_it(trl_run: Path, verl_run: Path) -> None:
    for folder, moved in ((trl_run, trl_run / "rollouts"), (verl_run, verl_run / "rollouts")):
        moved.mkdir(exist_ok=True)
        (moved / "000001.jsonl.gz").write_bytes(b"")
        assert open_source(folder).index().get("trainer") is None
