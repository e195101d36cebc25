"""The tasks of the paper, on invented rows in the format of their data sets, and on the real ones where they are at hand."""

import json
import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pytest
from pyarrow import parquet

from lampo.tasks import (
    Aime24Options,
    Aime25Options,
    CodeTaskOptions,
    GpqaDiamondOptions,
    Math500Options,
    MathTaskOptions,
    MixtureOfThoughtsOptions,
    Task,
)
from lampo.tasks.check import check_answers
from lampo.tasks.decontaminate import overlaps
from lampo.tasks.load import DecontaminationOptions, load_benchmark, load_task
from lampo.types import LampoError, Problem
from lampo.verify import ChoiceOptions, CodeOptions, MathOptions, PythonOptions, VerifierPool, judge


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


MATH, SCIENCE, CODE = (
    "open-r1/OpenR1-Math-220k",
    "nvidia/Llama-Nemotron-Post-Training-Dataset",
    "open-r1/codeforces-cots",
)
STATEMENT = "Solve this competitive programming problem in Python.\nAdd two numbers.\n## Examples\n```input\n1 2\n```\n```output\n3\n```\n```input\n5 5\n```\n```output\n10\n```\n"


def trace(question: str, answer: str, thought: str = "hm", source: str = MATH, num_tokens: int = 7) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": f"<think>{thought}</think>\n{answer}"},
    ]
    return {"messages": messages, "num_tokens": num_tokens, "source": source}


def traces() -> list[dict[str, Any]]:
    """Invented rows in the format of Mixture-of-Thoughts: 60 sums, and one of each special kind."""
    sums = [trace(f"What is {n} + {n}?", f"It is \\boxed{{{2 * n}}}.", f"\\boxed{{{n}}}") for n in range(60)]
    return [
        *sums,
        trace("Which one? A) x B) y", "Thus \\boxed{\\text{(B)}}.", source=SCIENCE),
        trace("Name the constant of integration.", "It is \\boxed{C}.", source=SCIENCE),
        trace("What is 7  + 7?", "It is \\boxed{15}."),
        trace("Prove it.", "It is proved.", source=SCIENCE),
        trace("Cut?", "So \\boxed{4"),
        {"messages": [{"role": "user", "content": "?"}], "num_tokens": 1, "source": MATH},
        trace(STATEMENT, "```python\nprint(sum(map(int, input().split())))\n```", source=CODE),
        trace(STATEMENT.replace("Python", "C++17"), "```cpp\nint main() {}\n```", source=CODE),
        trace("Write a program without examples.", "```python\n```", source=CODE),
        trace("Why?", "\\boxed{\\text{No, because energy is conserved}}", source=SCIENCE),
        trace("Which density?", "\\boxed{\\int f(x) dx}"),
        trace("Long?", "It is \\boxed{1}.", num_tokens=9000),
    ]


def test_mixture_of_thoughts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "mot.jsonl", traces())
    with caplog.at_level(logging.WARNING, logger="lampo"):
        task = MixtureOfThoughtsOptions(file=file, max_tokens=8000).load()
    assert (
        "left out 10 of 72 rows: 3 about code, 2 without an answer in a box, 1 asked before, "
        "1 without a question or a trace, 1 with an answer in words, 1 with an answer that cannot be read, "
        "1 with a trace that is too long" in caplog.text
    )
    by_prompt = {problem.prompt: problem for problem in [*task.train, *task.heldout]}
    assert len(by_prompt) == 62
    assert task.train
    assert task.heldout
    sum_problem = by_prompt["What is 7 + 7?"]
    assert (sum_problem.answer, sum_problem.verifier) == ("14", MathOptions())
    assert sum_problem.reference == "<think>\\boxed{7}</think>\nIt is \\boxed{14}."
    choice, letter = by_prompt["Which one? A) x B) y"], by_prompt["Name the constant of integration."]
    assert (choice.id, choice.answer, choice.verifier) == ("mixture_of_thoughts/science/61", "B", ChoiceOptions())
    assert (letter.answer, letter.verifier) == ("C", MathOptions())  # no options in the question: not a choice
    assert check_answers(list(by_prompt.values()), None, judged).failing == ()
    MixtureOfThoughtsOptions(file=file, max_prompt_characters=20).load()
    assert "1 with a question that is too long" in caplog.text
    few = MixtureOfThoughtsOptions(file=file, num_train=5, num_heldout=1).load()
    assert (len(few.train), len(few.heldout)) == (5, 1)


def test_mixture_of_thoughts_takes_programs_where_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = write(tmp_path / "mot.jsonl", traces())
    with caplog.at_level(logging.WARNING, logger="lampo"):
        task = MixtureOfThoughtsOptions(file=file, domains=["code"]).load()
    (code,) = [*task.train, *task.heldout]
    assert code.verifier == CodeOptions()
    assert json.loads(code.answer) == {"type": "stdin", "inputs": ["1 2\n", "5 5\n"], "outputs": ["3\n", "10\n"]}
    assert "left out 71 of 72 rows: 65 about math, 4 about science, 1 asking for C++" in caplog.text
    assert "1 without examples to test a program with" in caplog.text


def test_what_is_wrong_with_mixture_of_thoughts_is_said(tmp_path: Path) -> None:
    def load(row: dict[str, Any], **options: Any) -> None:
        MixtureOfThoughtsOptions(file=write(tmp_path / "x.jsonl", [row]), **options).load()

    with pytest.raises(LampoError, match="no column 'messages'.*did you mean 'message'"):
        load({"message": "x"})
    with pytest.raises(LampoError, match="no column 'num_tokens'"):
        load({"messages": []}, max_tokens=5)
    with pytest.raises(LampoError, match="none of its 1 rows"):
        load(trace("?", "none"))


def test_mixture_of_thoughts_as_it_lies_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder laid out like the hub's repository, streamed by the real loader, its domains in turn."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = {
        "math": traces()[:10],
        "science": [trace(f"{n}? A) x B) y", "\\boxed{B}", source=SCIENCE) for n in range(3)],
    }
    configs = ""
    for domain in rows:
        (tmp_path / domain).mkdir()
        parquet.write_table(pyarrow.Table.from_pylist(rows[domain]), tmp_path / domain / "train-00000-of-00001.parquet")
        configs += f"- config_name: {domain}\n  data_files:\n  - split: train\n    path: {domain}/train-*\n"
    (tmp_path / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    task = MixtureOfThoughtsOptions(path=str(tmp_path), num_train=6).load()
    assert Counter(problem.id.split("/")[1] for problem in task.train) == {"math": 3, "science": 3}


def test_math_from_solutions_and_by_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {
            "problem": f"Double {n}.",
            "level": f"Level {n % 5 + 1}",
            "type": "Algebra",
            "solution": f"It is $\\boxed{{{2 * n}}}$.",
        }
        for n in range(10)
    ]
    rows.append({"problem": "No box", "level": "Level ?", "type": "Algebra", "solution": "Nothing."})
    train, heldout = write(tmp_path / "train.jsonl", rows), write(tmp_path / "test.jsonl", rows[:1])
    with caplog.at_level(logging.WARNING, logger="lampo"):
        task = MathTaskOptions(train=train, heldout=heldout, levels=[1, 2]).load()
    assert "left out 7 of 11 rows: 6 of other levels, 1 without an answer" in caplog.text
    assert [problem.answer for problem in task.train] == ["2", "10", "12"]  # 0 is held out
    assert task.train[0].reference == "It is $\\boxed{2}$."
    assert task.heldout[0].verifier == MathOptions()
    with pytest.raises(LampoError, match="no problem is left"):
        MathTaskOptions(train=write(tmp_path / "one.jsonl", rows[:1]), heldout=heldout, levels=[5]).load()


def test_an_answer_of_zero_is_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"problem": "9 - 9?", "answer": 0, "solution": "It is $0$, and not $\\boxed{9}$."},
        {"problem": "0.5 - 0.5?", "answer": 0.0},
        {"problem": "10 - 1?", "answer": None, "solution": "It is $\\boxed{9}$."},
        {"problem": "10 - 2?", "answer": "", "solution": "It is $\\boxed{8}$."},
        {"problem": "10 - 3?", "answer": None},
        {"problem": "10 - 4?", "answer": ""},
    ]
    file = write(tmp_path / "test.jsonl", rows)
    with caplog.at_level(logging.WARNING, logger="lampo"):
        task = MathTaskOptions(train=file, heldout=file).load()
    assert [problem.answer for problem in task.heldout] == ["0", "0", "9", "8"]
    assert "left out 2 of 6 rows: 2 without an answer" in caplog.text


def test_benchmarks_have_nothing_to_train_on(tmp_path: Path) -> None:
    file = write(tmp_path / "aime.jsonl", [{"id": 1, "problem": "What is 5 squared?", "answer": "025"}])
    for options in (Aime24Options, Aime25Options, Math500Options):
        task = options(file=file).load()
        assert (len(task.train), task.heldout[0].prompt, task.heldout[0].answer) == (0, "What is 5 squared?", "025")
        with pytest.raises(LampoError, match="no train problems. A benchmark can only be evaluated on"):
            task.for_training()
    with pytest.raises(LampoError, match="no column 'problem'"):
        Aime24Options(file=write(tmp_path / "x.jsonl", [{"question": "?", "answer": 1}])).load()


GPQA_COLUMNS = "Pre-Revision Question,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Record ID,Canary String"


def test_gpqa_shuffles_by_the_record_and_keeps_its_canary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [GPQA_COLUMNS]
    lines += [
        f'old {n}?,"Invented, number {n}?", right {n} ,w1,w2,"w3\nmore",rec{n},invented-canary' for n in range(40)
    ]
    lines.append("old?,Missing an option?,right,w1,,w3,recX,invented-canary")
    file = tmp_path / "gpqa_diamond.csv"
    file.write_text("\n".join(lines) + "\n")
    with caplog.at_level(logging.WARNING, logger="lampo"):
        task = GpqaDiamondOptions(file=str(file)).load()
    assert "left out 1 of 41 rows" in caplog.text
    assert len(task.heldout) == 40
    assert task.train == []
    letters = Counter()
    for number, problem in enumerate(task.heldout):
        answer = json.loads(problem.answer)
        assert answer["options"]["ABCD".index(answer["letter"])] == f"right {number}"
        assert f"{answer['letter']}) right {number}" in problem.prompt
        assert problem.prompt.startswith(f"Invented, number {number}?\n\nA) ")
        assert problem.id == f"gpqa_diamond/rec{number} invented-canary"
        letters[answer["letter"]] += 1
    assert len(letters) == 4
    assert GpqaDiamondOptions(file=str(file)).load().heldout == task.heldout
    file.write_text(lines[0].replace("Canary String", "Note") + "\n" + lines[1] + "\n")
    with pytest.raises(LampoError, match="no column 'Canary String'"):
        GpqaDiamondOptions(file=str(file)).load()


def test_without_the_hub_it_says_how_to_get_the_data() -> None:
    for options, advice in (
        (GpqaDiamondOptions(), "accept its terms"),
        (Aime24Options(), "--data aime24=FILE"),
        (MixtureOfThoughtsOptions(), "set task.file"),
        (MathTaskOptions(), "set task.train and task.heldout"),
    ):
        with pytest.raises(LampoError, match=advice):
            options.load()


def test_code_in_all_formats(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cases = [{"type": "stdin_stdout", "input": "1\n", "output": "2\n", "fn_name": None}] * 30
    tests = {"inputs": ["1\n"], "outputs": ["2\n"]}
    for rows in (
        [
            {
                "problem_statement": "Double.",
                "gold_standard_solution": "print(2)",
                "verification_info": {"language": "python", "test_cases": cases},
            }
        ],
        [{"question": "Double.", "starter_code": "", "input_output": json.dumps(tests), "solutions": '["print(2)"]'}],
        [
            {
                "prompt": [{"role": "user", "content": "Double."}],
                "ability": "code",
                "reward_model": {"style": "rule", "ground_truth": json.dumps(tests)},
            }
        ],
    ):
        bad = {key: None if key in ("verification_info", "input_output") else value for key, value in rows[0].items()}
        bad |= {"reward_model": {"ground_truth": "{"}} if "reward_model" in bad else {}
        with caplog.at_level(logging.WARNING, logger="lampo"):
            task = CodeTaskOptions(file=write(tmp_path / "code.jsonl", [*rows, bad])).load()
        (problem,) = [*task.train, *task.heldout]
        assert problem.prompt == "Double."
        assert problem.verifier == CodeOptions()
        assert problem.reference == (None if "reward_model" in rows[0] else "print(2)")
        assert len(json.loads(problem.answer)["inputs"]) <= 20
        assert "left out 1 of 2 rows" in caplog.text
    with pytest.raises(LampoError, match="not in a format of programming problems"):
        CodeTaskOptions(file=write(tmp_path / "x.jsonl", [{"question": "?"}])).load()


def judged(triples: list[tuple[Any, str, str]]) -> list[Any]:
    return [judge(*triple) for triple in triples]


def test_answers_that_cannot_be_right_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [Problem(str(n), "?", answer) for n, answer in enumerate(["4", "four", "5"])]
    check = check_answers(problems, None, judged)
    assert check.num_checked == 3
    assert [problem.id for problem, _ in check.failing] == ["1"]
    assert "1 of 3 answers do not verify against themselves" in str(check)
    assert "'four' is unknown" in str(check)
    assert not check_answers(problems, ChoiceOptions(), judged).num_uncheckable
    assert check_answers([Problem("0", "?", "{}", verifier=CodeOptions())], None, judged).num_uncheckable == 1
    slow = PythonOptions(function="operator.eq")
    with monkeypatch.context() as patch:
        patch.setattr(PythonOptions, "answer_text", lambda _self, answer: answer)
        many = [Problem(str(n), "?", str(n), verifier=slow) for n in range(2500)]
        check = check_answers(many, None, judged)
    assert (check.num_checked, check.failing) == (834, ())  # every third


def test_overlap_is_found_whatever_the_punctuation() -> None:
    asked = [
        Problem("t1", "Let $x$ be a REAL number, with x + 1 = 2. Find it!", ""),
        Problem("t2", "Something else.", ""),
    ]
    seen = [Problem("h1", "let x be a real number with x+1=2; find", ""), Problem("h2", "something ELSE", "")]
    found = overlaps(asked, seen)
    assert [(overlap.train.id, overlap.heldout.id, overlap.share) for overlap in found] == [
        ("t1", "h1", 1.0),
        ("t2", "h2", 1.0),
    ]
    assert found[0].words == "let x be a real number with x 1 2 find"
    assert overlaps(asked, seen, ngram=20) == [overlap for overlap in found if overlap.train.id == "t2"]
    assert overlaps([Problem("e", "?!", "")], seen) == []


def test_the_index_finds_what_comparing_all_pairs_finds() -> None:
    generator = random.Random(0)

    def problems(name: str, count: int) -> list[Problem]:
        texts = [" ".join(generator.choices("abc", k=generator.randint(1, 9))) for _ in range(count)]
        return [Problem(f"{name}{index}", text, "") for index, text in enumerate(texts)]

    def grams(problem: Problem) -> set[str]:
        words = problem.prompt.split()
        return {" ".join(words[start : start + 4]) for start in range(max(1, len(words) - 3))}

    train, heldout = problems("t", 120), problems("h", 30)
    found = {overlap.train.id: overlap for overlap in overlaps(train, heldout, ngram=4)}
    assert 0 < len(found) < 120
    for problem in train:
        share = max(len(grams(problem) & grams(other)) / len(grams(other)) for other in heldout)
        assert (found[problem.id].share if problem.id in found else 0) == share
        if problem.id in found:
            assert found[problem.id].words in problem.prompt
            assert found[problem.id].words in found[problem.id].heldout.prompt


def test_a_stock_phrase_is_told_from_a_copy() -> None:
    phrase = "the answer is m over n where m and n are relatively prime positive integers"
    seen = [
        Problem(
            "h1",
            f"A box holds nine red and four blue balls, and two are drawn at random without looking; {phrase}.",
            "",
        ),
        Problem("h2", "Red and blue balls are drawn from nine boxes, and the colours are noted by Ann.", ""),
    ]
    asked = [
        Problem("phrase", f"A dog runs around three sides of a field; {phrase}.", ""),
        Problem("copy", "Then: red and blue balls are drawn from nine boxes, and the colours are noted by Ben.", ""),
        Problem("neither", "How old is Ann?", ""),
    ]
    copy, phrase_only = overlaps(asked, seen)
    assert (copy.train.id, copy.heldout.id, copy.is_copy) == ("copy", "h2", True)
    assert (phrase_only.train.id, phrase_only.heldout.id, phrase_only.is_copy) == ("phrase", "h1", False)
    assert phrase_only.words == phrase


def test_a_recipe_leaves_out_what_overlaps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        {"problem": f"Take {n} apples and add two more to them, how many?", "answer": str(n + 2)} for n in range(20)
    ]
    train, test = write(tmp_path / "train.jsonl", rows[:15]), write(tmp_path / "test.jsonl", rows[15:])
    aime = write(tmp_path / "aime.jsonl", [{"problem": "Take 3 apples and add two more to them, now!", "answer": "5"}])
    options = MathTaskOptions(train=train, heldout=test)
    cleaning = DecontaminationOptions(benchmarks=["aime24"], data={"aime24": aime}, ngram=9)
    with caplog.at_level(logging.WARNING, logger="lampo"):
        task = load_task(options, cleaning)
    assert "left out 1 of 15 training problems that share 9 words in a row with aime24" in caplog.text
    assert "Take 3 apples" not in " ".join(problem.prompt for problem in task.train)
    assert len(load_task(options, DecontaminationOptions()).train) == 15


def test_benchmarks_by_name(tmp_path: Path) -> None:
    file = write(tmp_path / "f.jsonl", [{"question": "2+2?", "answer": "so #### 4"}])
    assert load_benchmark("gsm8k", {"gsm8k": file})[0].answer == "4"
    other = write(tmp_path / "g.jsonl", [{"problem": "2+3?", "answer": "5"}])
    assert load_benchmark("gsm8k", {"gsm8k": other})[0].prompt == "2+3?"
    assert len(load_benchmark("word_arithmetic", {})) == 188
    assert [problem.answer for problem in load_benchmark("files", {"files": other})] == ["5"]
    for name, data, message in (
        ("aime42", {}, "Did you mean aime2"),
        ("files", {}, "needs a file: --data files=FILE"),
        ("arithmetic", {"arithmetic": "x"}, "is generated"),
        ("mix", {}, "needs parts. Write a recipe"),
        ("mix", {"mix": file}, "needs parts. Write a recipe"),
    ):
        with pytest.raises(LampoError, match=message):
            load_benchmark(name, data)


def test_the_real_benchmarks_verify_against_themselves(shared_data: Path) -> None:
    tasks: dict[str, Task] = {
        "math500": Math500Options(file=str(shared_data / "math500.jsonl")).load(),
        "aime24": Aime24Options(file=str(shared_data / "aime2024.jsonl")).load(),
        "aime25": Aime25Options(file=str(shared_data / "aime2025.jsonl")).load(),
    }
    assert [len(task.heldout) for task in tasks.values()] == [500, 30, 30]
    with VerifierPool() as pool:
        for name, task in tasks.items():
            check = check_answers(task.heldout, None, pool.verify_all)
            assert check.num_checked == len(task.heldout)
            assert check.failing == (), f"{name}: {check}"


def test_the_real_math_by_level_and_against_its_test_problems(shared_data: Path) -> None:
    train, test = shared_data / "math_train.jsonl", shared_data / "math500.jsonl"
    task = MathTaskOptions(train=str(train), heldout=str(test), levels=[4, 5]).load()
    assert (len(task.train), len(task.heldout)) == (1680 + 2287, 500)
    assert task.train[0].reference is None
    assert task.heldout[0].reference is not None
    whole = MathTaskOptions(train=str(train), heldout=str(test)).load()
    assert len(whole.train) == 7452 - 2  # two of level 0
    found = overlaps(whole.train, task.heldout)
    assert (len(found), sum(overlap.is_copy for overlap in found)) == (892, 42)
