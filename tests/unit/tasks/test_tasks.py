import json
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
    ArithmeticChoiceOptions,
    ArithmeticOptions,
    Gsm8kOptions,
    SmallProgramsOptions,
    WordArithmeticOptions,
    WordProblemsOptions,
    worked_solution,
)
from lampo.tasks.split import subset
from lampo.types import LampoError, Problem
from lampo.verify import NumericOptions
from lampo.verify.code.tests import read_tests

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


def test_word_problems_are_worked_as_they_are_told():
    task = WordProblemsOptions(steps=[2, 3], num_train=300, num_heldout=60).load()
    check_task(task)
    assert (len(task.train), len(task.heldout)) == (300, 60)
    calculations = [problem.id for problem in (*task.train, *task.heldout)]
    assert len(set(calculations)) == 360
    for problem in (*task.train, *task.heldout):
        *lines, last = problem.reference.split("\n")
        value = int(re.findall(r"\d+", problem.prompt)[0])
        told = [value]
        for line in lines:
            a, symbol, b, result = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", line).groups()
            assert int(a) == value
            value = {"+": value + int(b), "-": value - int(b), "*": value * int(b), "/": value / int(b)}[symbol]
            assert value == int(result)
            assert 2 <= value <= 100
            told.append(int(b))
        assert last == f"The answer is {problem.answer}."
        assert value == int(problem.answer)
        assert [int(number) for number in re.findall(r"\d+", problem.prompt)] == told
    assert {len(problem.reference.split("\n")) - 1 for problem in task.train} == {2, 3}
    assert {symbol for problem in task.train for symbol in re.findall(r" ([-+*/]) ", problem.reference)} == set("+-*/")


def test_word_problems_are_as_many_as_there_are():
    task = WordProblemsOptions(steps=[1], num_train=10_000, num_heldout=10_000).load()
    check_task(task)
    assert 900 < len(task.train) + len(task.heldout) < 2_000
    with pytest.raises(ValidationError):
        WordProblemsOptions(steps=[0])


# Small programs, and multiple choice


def test_small_programs_do_what_their_specification_says():
    task = SmallProgramsOptions(num_train=200, num_heldout=100).load()
    check_task(task)
    for problem in (*task.train, *task.heldout):
        bounds = [int(bound) for bound in re.findall(r"below (\d)", problem.prompt)]
        steps = re.findall(r"(add|minus|times) (\d)", problem.prompt)
        assert len(steps) == len(bounds) + 1 == 3
        space = {}
        exec(problem.reference.strip("`\n"), space)
        tests = read_tests(problem.answer)
        assert sorted(x for (x,) in tests.inputs) == list(range(10))
        for (x,), value in zip(tests.inputs, tests.outputs, strict=True):
            word, number = steps[sum(x >= bound for bound in bounds)]
            expected = {"add": x + int(number), "minus": x - int(number), "times": x * int(number)}[word]
            assert expected == value == space["f"](x)


def test_the_reward_of_small_programs_does_not_see_hidden_tests():
    seen = SmallProgramsOptions(num_train=100, tests=8, hidden_tests=5, demonstration_noise=0.5).load()
    whole = SmallProgramsOptions(num_train=100, tests=8, demonstration_noise=0.5).load()
    assert seen.heldout == whole.heldout
    for few, all_ in zip(seen.train, whole.train, strict=True):
        assert (few.prompt, few.demonstration) == (all_.prompt, all_.demonstration)
        assert read_tests(few.answer).inputs == read_tests(all_.answer).inputs[:3]
        assert len(read_tests(all_.answer)) == 8
    with pytest.raises(ValidationError, match="hidden_tests is 8 of 8 tests"):
        SmallProgramsOptions(tests=8, hidden_tests=8)


def test_mistakes_of_small_programs_are_as_frequent_as_asked():
    task = SmallProgramsOptions(num_train=1000, demonstration_noise=0.2).load()
    same = sum(problem.demonstration == problem.reference for problem in task.train) / 1000
    assert same == pytest.approx(0.8**5, abs=4 * (0.33 * 0.67 / 1000) ** 0.5)  # two bounds and three steps


def test_one_of_four_numbers_is_divided():
    task = ArithmeticChoiceOptions(num_train=300, num_heldout=100, demonstration_noise=0.3).load()
    check_task(task)
    letters = Counter()
    for problem in (*task.train, *task.heldout):
        divisor, *offered = map(int, re.findall(r"\d+", problem.prompt))
        letter = problem.reference[-1]
        letters[letter] += 1
        assert [number % divisor == 0 for number in offered] == [each == letter for each in "ABCD"]
        lines = problem.reference.split("\n")[:-1]
        assert lines == [f"{a}{n}={n % divisor}" for a, n in zip("ABCD", offered, strict=True)][: len(lines)]
        assert problem.verifier.verify(problem.reference, problem.answer).status == "right"
        assert problem.verifier.verify(problem.demonstration, problem.answer).status in ("right", "wrong")
    assert min(letters.values()) > 70  # no letter is the likelier one
    assert 0.3 < sum(problem.demonstration == problem.reference for problem in task.train) / 300 < 0.6


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
        "files": {"train": "a", "heldout_fraction": 0.1},
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
