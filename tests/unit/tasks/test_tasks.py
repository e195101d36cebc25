import json
import logging
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from lampo.tasks import (
    TASKS,
    AnyTask,
    ArithmeticOptions,
    Columns,
    Gsm8kOptions,
    JsonlOptions,
    WordArithmeticOptions,
    worked_solution,
)
from lampo.tasks.split import subset
from lampo.types import LampoError, Problem
from lampo.verify import NumericOptions

SHARED_DATA = Path(__file__).parents[3].parent / "shared" / "data"


def write_jsonl(file, rows):
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(file)


def check_task(task):
    """What holds for every task: unique ids, no prompt twice, no overlap."""
    problems = [*task.train, *task.heldout]
    assert len({problem.id for problem in problems}) == len(problems)
    assert len({problem.prompt for problem in problems}) == len(problems)


def line_holds(line):
    left, _, right = line.rpartition("=")
    value = sum(_product(term) for term in left.split("+"))
    return value == int(right)


def _product(term):
    first, _, second = term.partition("*")
    return int(first) * int(second or 1)


def operands(problem):
    first, symbol, second = re.fullmatch(r"(\d+)([+*])(\d+)=", problem.prompt).groups()
    return int(first), symbol, int(second)


# Arithmetic


@pytest.mark.parametrize(
    "options",
    [
        ArithmeticOptions(num_train=500),
        ArithmeticOptions(digits=1),
        ArithmeticOptions(digits=12, num_train=200, num_heldout=50),
        ArithmeticOptions(operations=["multiply"], num_train=500),
        ArithmeticOptions(operations=["add", "multiply"], digits=4, multiplier_digits=3, num_train=500),
    ],
)
def test_arithmetic_is_right_in_every_line(options):
    task = options.load()
    check_task(task)
    for problem in (*task.train, *task.heldout):
        a, symbol, b = operands(problem)
        expected = a + b if symbol == "+" else a * b
        assert problem.answer == str(expected)
        *lines, last = problem.reference.split("\n")
        assert last == f"={expected}"
        assert all(line_holds(line) for line in lines if not line.startswith("=")), problem
        assert NumericOptions().verify(problem.reference, problem.answer).status == "right"
        assert problem.demonstration is None


def test_arithmetic_has_the_asked_sizes_and_digits():
    task = ArithmeticOptions(operations=["add", "multiply"], digits=3, multiplier_digits=2, num_train=1000).load()
    assert (len(task.train), len(task.heldout)) == (1000, 500)
    digits = {(symbol, len(str(a)), len(str(b))) for a, symbol, b in map(operands, task.train)}
    assert digits == {("+", 3, 3), ("*", 3, 2)}
    shares = Counter(operands(problem)[1] for problem in task.train)
    assert abs(shares["+"] - shares["*"]) < 100


def test_arithmetic_sides_do_not_overlap_for_any_seed_even_with_operands_swapped():
    options = [ArithmeticOptions(digits=2, num_train=10_000, num_heldout=10_000, seed=seed).load() for seed in (0, 1)]
    train, heldout = (
        {tuple(sorted(operands(problem)[::2])) for task in options for problem in getattr(task, side)}
        for side in ("train", "heldout")
    )
    assert not train & heldout
    assert len(train | heldout) == 90 * 91 // 2  # every unordered pair of two-digit numbers


def test_arithmetic_is_a_function_of_its_seed():
    options = ArithmeticOptions(num_train=100, num_heldout=50, demonstration_noise=0.5)
    assert options.load() == options.load()
    other = ArithmeticOptions(num_train=100, num_heldout=50, demonstration_noise=0.5, seed=1).load()
    assert other.train != options.load().train


def test_a_slip_depends_on_seed_and_problem_alone():
    few = ArithmeticOptions(digits=2, num_train=50, demonstration_noise=0.5).load().train
    many = ArithmeticOptions(digits=2, num_train=5000, demonstration_noise=0.5, operations=["multiply", "add"]).load()
    found = {problem.prompt: problem.demonstration for problem in many.train}
    shared = [problem for problem in few if problem.prompt in found]
    assert len(shared) > 10
    assert all(problem.demonstration == found[problem.prompt] for problem in shared)


def test_slips_are_as_frequent_as_asked_and_the_rest_follows_from_them():
    problems = ArithmeticOptions(num_train=2000, demonstration_noise=0.1).load().train
    num_slips = num_right = 0
    for problem in problems:
        *lines, last = problem.demonstration.split("\n")
        results = [int(line.rpartition("=")[2]) for line in lines]
        assert all(0 <= result <= 19 for result in results)
        carries = [0, *(result // 10 for result in results)]
        a, _, b = operands(problem)
        for place, (line, carry) in enumerate(zip(lines, carries, strict=False)):
            terms = [a // 10**place % 10, b // 10**place % 10]
            assert line.rpartition("=")[0] == "+".join(map(str, [carry, *terms]))
        number = carries[-1] * 10**3 + sum(result % 10 * 10**place for place, result in enumerate(results))
        assert last == f"={number}"
        slips = [line for line in lines if not line_holds(line)]
        num_slips += len(slips)
        num_right += str(number) == problem.answer
        if len(slips) < 2:
            assert (str(number) == problem.answer) == (not slips)
        assert problem.reference == worked_solution("add", a, b)
    assert num_slips / (3 * len(problems)) == pytest.approx(0.1, abs=4 * (0.1 * 0.9 / 6000) ** 0.5)
    assert num_right / len(problems) == pytest.approx(0.9**3, abs=0.05)


def test_noise_of_one_makes_every_column_wrong():
    options = ArithmeticOptions(operations=["multiply"], multiplier_digits=2, num_train=100, demonstration_noise=1.0)
    for problem in options.load().train:
        lines = [line for line in problem.demonstration.split("\n") if not line.startswith("=")]
        assert not any(line_holds(line) for line in lines)
        assert all(0 <= int(line.rpartition("=")[2]) <= 89 for line in lines)


def test_carries_are_forgotten_as_often_as_asked_and_nothing_else_is_wrong():
    options = ArithmeticOptions(num_train=2000, demonstration_noise=0.8, demonstration_mistake="forgotten_carry")
    num_carries = num_forgotten = 0
    for problem in options.load().train:
        *lines, last = problem.demonstration.split("\n")
        assert all(line_holds(line) for line in lines)
        results = [int(line.rpartition("=")[2]) for line in lines]
        number = int(last[1:])
        carried = [*(int(line[0]) for line in lines[1:]), number // 1000]
        assert number % 1000 == sum(result % 10 * 10**place for place, result in enumerate(results))
        due = [result // 10 for result in results]
        assert all(carry in (0, right) for carry, right in zip(carried, due, strict=True))
        num_carries += sum(due)
        num_forgotten += sum(due) - sum(carried)
        assert (str(number) == problem.answer) == (carried == due)
    assert num_forgotten / num_carries == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / num_carries) ** 0.5)


def test_a_product_is_worked_in_partial_products_and_sums():
    partials = ["0+2*5=10 1+1*5=06 =60", "0+2*4=08 0+1*4=04 =480", "0+2*3=06 0+1*3=03 =3600"]
    sums = ["0+0+0=00 0+6+8=14 1+0+4=05 =540", "0+0+0=00 0+4+0=04 0+5+6=11 1+0+3=04 =4140"]
    lines = [partials[0], partials[1], sums[0], partials[2], sums[1]]
    assert worked_solution("multiply", 12, 345).split() == " ".join(lines).split()


def test_a_tiny_space_gives_what_there_is():
    task = ArithmeticOptions(digits=1).load()
    assert len(task.train) + len(task.heldout) == 10 * 10


@pytest.mark.parametrize("options", [{"digits": 0}, {"operations": []}, {"operations": ["divide"]}, {"num_heldout": 0}])
def test_arithmetic_refuses(options):
    with pytest.raises(ValidationError):
        ArithmeticOptions(**options)


def test_word_arithmetic():
    task = WordArithmeticOptions(operations=["add", "subtract", "multiply"], num_train=300, num_heldout=50).load()
    check_task(task)
    assert (len(task.train), len(task.heldout)) == (300, 50)
    sides = {}
    for side in ("train", "heldout"):
        for problem in getattr(task, side):
            a, symbol, b, result = re.fullmatch(r"(\d+) ([-+*]) (\d+) = (\d+)", problem.reference).groups()
            expected = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[symbol]
            assert problem.answer == result == str(expected)
            assert re.findall(r"\d+", problem.prompt) == [a, b]
            assert max(int(a), int(b)) <= (12 if symbol == "*" else 20)
            key = (symbol, *sorted((int(a), int(b))))
            assert sides.setdefault(key, side) == side


def test_word_arithmetic_that_is_too_small_says_what_to_raise():
    with pytest.raises(LampoError, match=r"task\.largest=2"):
        WordArithmeticOptions(operations=["subtract"], largest=2).load()


# The user's own files


ROWS = [{"question": f"What is {number}?", "gold": number, "why": f"It is {number}."} for number in range(100)]
COLUMNS = Columns(prompt="question", answer="gold", reference="why")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_one_file_split_by_the_prompt(tmp_path, kind):
    file = tmp_path / f"problems.{kind}"
    if kind == "jsonl":
        write_jsonl(file, ROWS)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    task = JsonlOptions(train=str(file), heldout_fraction=0.3, columns=COLUMNS).load()
    check_task(task)
    assert 15 < len(task.heldout) < 45
    assert len(task.train) + len(task.heldout) == 100
    problem = task.train[0]
    number = int(problem.id.rpartition("/")[2]) - 1  # rows count from 1
    assert (problem.prompt, problem.answer) == (f"What is {number}?", str(number))
    assert problem.reference == f"It is {number}."

    again = tmp_path / "again.jsonl"  # the side does not depend on the other rows, their order, or repetition
    write_jsonl(again, [*reversed(ROWS[:50]), *ROWS[:50]])
    other = JsonlOptions(train=str(again), heldout_fraction=0.3, columns=COLUMNS).load()
    assert {problem.prompt for problem in other.heldout} < {problem.prompt for problem in task.heldout}
    assert {problem.prompt for problem in other.train} < {problem.prompt for problem in task.train}


def test_two_files_never_overlap(tmp_path, caplog):
    train = write_jsonl(tmp_path / "train.jsonl", [{"prompt": f"p {n}", "answer": "1"} for n in range(5)])
    heldout = write_jsonl(tmp_path / "test.jsonl", [{"prompt": " p   3", "answer": "1"}])
    task = JsonlOptions(train=train, heldout=heldout).load()
    check_task(task)
    assert [problem.prompt for problem in task.train] == ["p 0", "p 1", "p 2", "p 4"]
    assert task.train[0].reference is None
    assert "left out 1 training problems" in caplog.text


def test_one_file_on_both_sides_is_a_benchmark(tmp_path):
    file = write_jsonl(tmp_path / "a.jsonl", [{"prompt": f"p {n}", "answer": "1"} for n in range(3)])
    task = JsonlOptions(train=file, heldout=file).load()
    assert (task.train, len(task.heldout)) == ([], 3)
    with pytest.raises(LampoError, match="can only be evaluated on"):
        task.for_training()
    copy = write_jsonl(tmp_path / "b.jsonl", [{"prompt": f"p {n}", "answer": "1"} for n in range(3)])
    with pytest.raises(LampoError, match="0 problems are left to train on"):
        JsonlOptions(train=file, heldout=copy).load()


def test_answers_stay_as_they_were_written(tmp_path):
    answers = ["07", "2024-01-02", 5, 7.5, 5.0, 123456789012345678901234567890, "x", " 8 "]
    file = write_jsonl(tmp_path / "a.jsonl", [{"prompt": f"{n}", "answer": answer} for n, answer in enumerate(answers)])
    other = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "other", "answer": "1"}])
    task = JsonlOptions(train=file, heldout=other).load()
    assert [problem.answer for problem in task.train] == [
        *("07", "2024-01-02", "5", "7.5", "5", "123456789012345678901234567890", "x", " 8 ")
    ]


def test_rows_without_prompt_or_answer_are_dropped_and_counted(tmp_path, caplog):
    rows = [
        {"prompt": "a", "answer": "1"},
        {"prompt": " ", "answer": "1"},
        {"prompt": "c", "answer": None},
        {"prompt": "d"},
    ]
    file = write_jsonl(tmp_path / "a.jsonl", rows)
    with (tmp_path / "a.jsonl").open("a") as stream:
        stream.write('\n{"prompt": "e", "answer": NaN}\n')
    other = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "other", "answer": 0}])
    with caplog.at_level(logging.WARNING, logger="lampo"):
        task = JsonlOptions(train=file, heldout=other).load()
    assert [problem.id for problem in task.train] == ["jsonl/train/1"]
    assert task.heldout[0].answer == "0"
    assert "left out 4 of 5 rows" in caplog.text


def load_text(file, text, **columns):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return JsonlOptions(train=str(file), heldout_fraction=0.5, columns=Columns(**columns)).load()


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", {}, "is empty"),
        ("\n \n", {}, "is empty"),
        ('{"prompt": "a", "answer": "1"}\n\n{"prompt": \n', {}, "line 3: not valid JSON"),
        ('["a", "1"]\n', {}, "line 1: holds a list, not an object"),
        ('{"promt": "a", "answer": "1"}\n', {}, "no column 'prompt'; it has: promt, answer. Did you mean 'promt'?"),
        ('{"prompt": "a", "answer": "1"}\n', {"reference": "why"}, "Set task.columns.reference"),
        ('{"prompt": "a", "answer": null}\n', {}, "none of its 1 rows"),
        ('{"prompt": "a", "answer": ["1"]}\n', {}, "row 1, column 'answer': holds a list"),
        ('{"prompt": "a", "answer": true}\n', {}, "holds a bool"),
        ('{"prompt": "a", "answer": "1"}\n', {}, "to train on and"),
        (b'{"prompt": "\xff", "answer": "1"}\n', {}, "not readable as UTF-8"),
        ("[" * 100_000, {}, "line 1: not valid JSON"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, columns, message):
    with pytest.raises(LampoError, match=re.escape(message)):
        load_text(tmp_path / "file.jsonl", text, **columns)


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path):
    rows = "".join(f'{{"prompt": "{n}\u2028", "answer": "1"}}\r\n' for n in range(20))
    assert len(load_text(tmp_path / "file.jsonl", f"\ufeff{rows}").train) > 1


def test_missing_and_strange_files_are_named_in_full(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "table.xlsx").write_text("")
    (tmp_path / "broken.parquet").write_text("not parquet")
    for name, message in {
        "missing.jsonl": "does not exist",
        "folder.jsonl": "is a folder",
        "table.xlsx": "none of .jsonl, .parquet and .csv",
        "broken.parquet": "not a readable Parquet file",
    }.items():
        with pytest.raises(LampoError, match=f"{re.escape(str(tmp_path / name))}.*{message}"):
            JsonlOptions(train=name, heldout_fraction=0.5).load()


def test_jsonl_wants_one_source_of_heldout_problems():
    for options in ({}, {"heldout": "b", "heldout_fraction": 0.1}, {"heldout_fraction": 1.0}):
        with pytest.raises(ValidationError, match="heldout_fraction"):
            JsonlOptions(train="a", **options)


# GSM8K


HUB_ROW = {"question": "48 and half?", "answer": "48/2 = <<48/2=24>>24\nSo $<<48+24=1072>>1,072\n#### $1,072"}


def test_gsm8k_as_it_lies_on_the_hub(tmp_path, monkeypatch):
    """A folder laid out like the hub's repository, read by the real loader."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    repository = tmp_path / "gsm8k"
    (repository / "main").mkdir(parents=True)
    (repository / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n  - split: train\n    path: main/train-*\n"
        "  - split: test\n    path: main/test-*\n---\n"
    )
    for split in ("train", "test"):
        rows = [HUB_ROW | {"question": f"{split}?"}]
        parquet.write_table(pyarrow.Table.from_pylist(rows), repository / "main" / f"{split}-00000-of-00001.parquet")
    task = Gsm8kOptions(path=str(repository)).load()
    check_task(task)
    assert [problem.prompt for problem in task.train] == ["train?"]
    (problem,) = task.heldout
    assert (problem.id, problem.prompt, problem.answer) == ("gsm8k/test/1", "test?", "1072")
    assert problem.reference == "48/2 = 24\nSo $1,072\n#### 1072"


def test_gsm8k_without_a_network_says_what_to_do(monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(LampoError, match=r"no route\.\n.*task\.train and task\.heldout"):
        Gsm8kOptions().load()


def test_gsm8k_from_local_files(tmp_path):
    train = write_jsonl(tmp_path / "train.jsonl", [HUB_ROW])
    heldout = write_jsonl(tmp_path / "test.jsonl", [HUB_ROW | {"question": "another"}])
    task = Gsm8kOptions(train=train, heldout=heldout).load()
    assert task.train[0].answer == "1072"
    with pytest.raises(ValidationError, match="both"):
        Gsm8kOptions(train=train)


@pytest.mark.skipif(
    not (SHARED_DATA / "gsm8k_test.jsonl").exists(), reason="needs GSM8K in shared/data beside the repository"
)
def test_gsm8k_whole():
    task = Gsm8kOptions(
        train=str(SHARED_DATA / "gsm8k_train.jsonl"),
        heldout=str(SHARED_DATA / "gsm8k_test.jsonl"),
        columns={"prompt": "problem", "answer": "answer", "reference": "solution"},  # pyright: ignore[reportArgumentType]
    ).load()
    check_task(task)
    assert (len(task.train), len(task.heldout)) == (7473, 1319)
    verifier = NumericOptions(marker="####")
    for problem in (*task.train, *task.heldout):
        assert problem.reference.endswith(f"\n#### {problem.answer}")
        assert "<<" not in problem.reference
        assert verifier.verify(problem.reference, problem.answer).status == "right"
        assert NumericOptions().verify(problem.reference, problem.answer).status == "right"


# All tasks


def test_every_task_is_found_by_its_name():
    required = {
        "jsonl": {"train": "a", "heldout_fraction": 0.1},
        "mix": {"parts": [{"task": {"name": "arithmetic"}}, {"task": {"name": "gsm8k"}, "weight": 2}]},
    }
    for name, options in TASKS.items():
        assert options.__doc__
        made = TypeAdapter(AnyTask).validate_python({"name": name, **required.get(name, {})})
        assert type(made) is options
        for field, information in options.model_fields.items():
            assert information.description, f"{name}.{field} has no help text"
    with pytest.raises(ValidationError, match="union_tag"):
        TypeAdapter(AnyTask).validate_python({"name": "arithmetics"})


def test_tasks_are_read_without_torch():
    code = "import lampo.tasks, sys; assert not {'torch', 'datasets', 'reasoning_gym'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_subset_stands_for_all_even_if_they_are_sorted():
    problems = [Problem(f"{subject}/{number}", "?", "") for subject in ("algebra", "geometry") for number in range(500)]
    some, more = subset(problems, 200), subset(problems, 300)
    assert 80 <= sum(problem.id.startswith("algebra") for problem in some) <= 120
    assert list(more[:200]) == list(some)
    assert list(subset(problems, 100, skip=200)) == list(
        more[200:]
    )  # what was chosen on the first is not measured on them
    assert subset(problems, None) == subset(problems, 1000) == subset(problems, 2000) == problems
    assert sorted(problem.id for problem in [*some, *subset(problems, None, skip=200)]) == sorted(
        problem.id for problem in problems
    )
