"""The task `files`: CSV, JSONL, Parquet and Hugging Face dataset folders of one's own."""

import json
import logging
import re

import datasets
import pyarrow
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from lampo.tasks import AnyTask, Columns, FilesOptions
from lampo.tasks.load import load_benchmark
from lampo.types import LampoError, Problem


def write_jsonl(file, rows):
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(file)


def check_task(task):
    """Unique ids, and no prompt on both sides."""
    problems = [*task.train, *task.heldout]
    assert len({problem.id for problem in problems}) == len(problems)
    assert not {problem.prompt for problem in task.train} & {problem.prompt for problem in task.heldout}


ROWS = [{"question": f"What is {number}?", "gold": number, "why": f"It is {number}."} for number in range(100)]
COLUMNS = Columns(prompt="question", answer="gold", reference="why")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_one_file_split_by_the_prompt(tmp_path, kind):
    file = tmp_path / f"problems.{kind}"
    if kind == "jsonl":
        write_jsonl(file, ROWS)
    else:
        parquet.write_table(pyarrow.Table.from_pylist(ROWS), file)
    task = FilesOptions(train=str(file), heldout_fraction=0.3, columns=COLUMNS).load()
    check_task(task)
    assert 15 < len(task.heldout) < 45
    assert len(task.train) + len(task.heldout) == 100
    problem = task.train[0]
    number = int(problem.id.rpartition("/")[2]) - 1  # rows count from 1
    assert (problem.prompt, problem.answer) == (f"What is {number}?", str(number))
    assert problem.reference == f"It is {number}."

    again = tmp_path / "again.jsonl"  # the side does not depend on the other rows, their order, or repetition
    write_jsonl(again, [*reversed(ROWS[:50]), *ROWS[:50]])
    other = FilesOptions(train=str(again), heldout_fraction=0.3, columns=COLUMNS).load()
    assert {problem.prompt for problem in other.heldout} < {problem.prompt for problem in task.heldout}
    assert {problem.prompt for problem in other.train} < {problem.prompt for problem in task.train}


def test_two_files_never_overlap(tmp_path, caplog):
    train = write_jsonl(tmp_path / "train.jsonl", [{"prompt": f"p {n}", "answer": "1"} for n in range(5)])
    heldout = write_jsonl(tmp_path / "test.jsonl", [{"prompt": " p   3", "answer": "1"}])
    task = FilesOptions(train=train, heldout=heldout).load()
    check_task(task)
    assert [problem.prompt for problem in task.train] == ["p 0", "p 1", "p 2", "p 4"]
    assert task.train[0].reference is None
    assert "left out 1 training problems" in caplog.text


def test_one_file_on_both_sides_is_a_benchmark(tmp_path):
    file = write_jsonl(tmp_path / "a.jsonl", [{"prompt": f"p {n}", "answer": "1"} for n in range(3)])
    task = FilesOptions(train=file, heldout=file).load()
    assert (task.train, len(task.heldout)) == ([], 3)
    with pytest.raises(LampoError, match="can only be evaluated on"):
        task.for_training()
    copy = write_jsonl(tmp_path / "b.jsonl", [{"prompt": f"p {n}", "answer": "1"} for n in range(3)])
    with pytest.raises(LampoError, match="0 problems are left to train on"):
        FilesOptions(train=file, heldout=copy).load()


def test_answers_stay_as_they_were_written(tmp_path):
    answers = ["07", "2024-01-02", 5, 7.5, 5.0, 123456789012345678901234567890, "x", " 8 "]
    file = write_jsonl(tmp_path / "a.jsonl", [{"prompt": f"{n}", "answer": answer} for n, answer in enumerate(answers)])
    other = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "other", "answer": "1"}])
    task = FilesOptions(train=file, heldout=other).load()
    assert [problem.answer for problem in task.train] == [
        *("07", "2024-01-02", "5", "7.5", "5", "123456789012345678901234567890", "x", " 8 ")
    ]


def test_prompts_with_several_answers_are_told(tmp_path, caplog):
    rows = [{"prompt": f"q{number % 20}", "answer": number % 20} for number in range(40)]
    FilesOptions(train=write_jsonl(tmp_path / "twice.jsonl", rows), heldout_fraction=0.5).load()
    assert not caplog.text  # the same answer twice is none
    rows[22] |= {"prompt": "q2 ", "answer": "7"}
    FilesOptions(train=write_jsonl(tmp_path / "two.jsonl", rows), heldout_fraction=0.5).load()
    assert "prompts with several answers: 1, such as files/train/3 with '2' and files/train/23 with '7'." in caplog.text


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
        task = FilesOptions(train=file, heldout=other).load()
    assert [problem.id for problem in task.train] == ["files/train/1"]
    assert task.heldout[0].answer == "0"
    assert "left out 4 of 5 rows" in caplog.text


def load_text(file, text, **columns):
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return FilesOptions(train=str(file), heldout_fraction=0.5, columns=Columns(**columns)).load()


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("", {}, "is empty"),
        ("\n \n", {}, "is empty"),
        ('{"prompt": "a", "answer": "1"}\n\n{"prompt": \n', {}, "line 3: not valid JSON"),
        ('["a", "1"]\n', {}, "line 1: holds a list, not an object"),
        (
            '{"promt": "a", "answer": "1"}\n',
            {},
            "no column 'prompt' (did you mean 'promt'?). It has: 'promt', 'answer'.",
        ),
        ('{"prompt": "a", "answer": "1"}\n', {"reference": "why"}, "task: {columns: {reference: ...}}"),
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
        "folder.jsonl": "is a folder without a file of rows",
        "table.xlsx": "is none of .csv, .tsv, .jsonl",
        "broken.parquet": "not a readable Parquet file",
    }.items():
        with pytest.raises(LampoError, match=f"{re.escape(str(tmp_path / name))}.*{message}"):
            FilesOptions(train=name, heldout_fraction=0.5).load()


def test_files_want_one_source_of_heldout_problems():
    for options in ({}, {"heldout": "b", "heldout_fraction": 0.1}, {"heldout_fraction": 1.0}):
        with pytest.raises(ValidationError, match="heldout_fraction"):
            FilesOptions(train="a", **options)


# CSV


def csv_problems(file, text, **columns) -> dict[str, Problem]:
    task = load_text(file, text, **columns)
    return {problem.prompt: problem for problem in (*task.train, *task.heldout)}


NUMBERS = "".join(f"What is {n}?,{n},x{n}\n" for n in range(10))


def test_a_csv_keeps_its_text_as_it_was_written(tmp_path):
    text = f'\ufeffprompt,answer,level\r\n"Two lines,\nand a ""quote""",07,3\r\n{NUMBERS}'
    problems = csv_problems(tmp_path / "a.csv", text)
    first = problems['Two lines,\nand a "quote"']
    assert (first.answer, first.fields) == ("07", {"level": "3"})
    assert problems["What is 7?"].answer == "7"


@pytest.mark.parametrize(("ending", "mark"), [("csv", ";"), ("csv", "\t"), ("tsv", "\t")])
def test_a_csv_may_have_semicolons_or_tabs(tmp_path, ending, mark):
    rows = "".join(f"{n}{mark}{n},5\n" for n in range(10))  # 3,5 is a number where semicolons part the columns
    problems = csv_problems(tmp_path / f"a.{ending}", f"prompt{mark}answer\n{rows}")
    assert problems["3"].answer == "3,5"


def test_a_long_value_in_a_csv_is_read(tmp_path):
    long = "x" * 200_000  # the library's limit is 131,072
    assert csv_problems(tmp_path / "a.csv", f"prompt,answer,why\n1,1,{long}\n{NUMBERS}", reference="why")["1"].reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt,answer\n2, 3?,5\n", "a.csv, row 1: has 3 values for 2 columns. Put a value that holds ',' in double quotes."),
        ("prompt,answer,answer\n2,3,5\n", "two columns are named 'answer'"),
        ("prompt,answer\n2,\"3\n", "not a readable CSV file"),
        ("prompt,answer\nf\xfcr,1\n".encode("latin-1"), "Save it as CSV in UTF-8"),
        ("", "is empty"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_csv_is_said(tmp_path, text, message):
    with pytest.raises(LampoError, match=re.escape(message)):
        load_text(tmp_path / "a.csv", text)


# Columns


def test_one_error_lists_every_column_that_is_missing_with_a_guess_for_each(tmp_path):
    row = '{"question": "a", "gold": "1", "solution": "b", "topic": "c"}\n'
    with pytest.raises(LampoError) as error:
        load_text(tmp_path / "a.jsonl", row, reference="reference")
    assert str(error.value) == (
        f"{tmp_path}/a.jsonl has no columns 'prompt' (did you mean 'question'?), 'answer' (did you mean 'gold'?) "
        "and 'reference' (did you mean 'solution'?). It has: 'question', 'gold', 'solution', 'topic'. "
        "Name them in the recipe: task: {columns: {prompt: question, answer: gold, reference: solution}}"
    )


def test_the_guess_is_a_column_that_has_no_other_part_yet(tmp_path):
    with pytest.raises(LampoError, match=re.escape("{columns: {prompt: Problem, answer: ...}}")):
        load_text(tmp_path / "a.jsonl", '{"Problem": "a", "why": "1"}\n', reference="why")
    with pytest.raises(LampoError, match=re.escape("{columns: {answer: solution}}")):
        load_text(tmp_path / "b.jsonl", '{"prompt": "a", "solution": "1"}\n')


def test_a_guess_is_written_as_yaml_reads_it(tmp_path):
    with pytest.raises(LampoError, match=re.escape("{columns: {prompt: 'Prompt: ', answer: ' answer '}}")):
        load_text(tmp_path / "a.csv", "Prompt: , answer \na,1\n")


def test_the_other_columns_are_fields_of_the_problem(tmp_path):
    row = {"question": "a", "gold": 1, "why": "so", "level": 3, "tags": ["x"], "prompt": "not this", "": 0}
    file = write_jsonl(tmp_path / "a.jsonl", [row, row | {"question": "b"}])
    (first, _) = FilesOptions(train=file, heldout=file, columns=COLUMNS).load().heldout
    assert first.fields == {"level": 3, "tags": ["x"]}  # those that a reward function has other names for are left out
    assert Problem("1", "a", "b").fields == {}


# Folders of Hugging Face data sets

SIDES = {
    side: [{"prompt": f"{side} {n}?", "answer": f"0{n}", "level": n} for n in range(3)] for side in ("train", "test")
}


def check_sides(options):
    task = options.load()
    check_task(task)
    for problems, side in ((task.train, "train"), (task.heldout, "test")):
        assert [(problem.prompt, problem.answer) for problem in problems] == [
            (row["prompt"], row["answer"]) for row in SIDES[side]
        ]
        assert [problem.fields for problem in problems] == [{"level": n} for n in range(3)]


def test_a_saved_data_set_with_splits(tmp_path):
    splits = {side: datasets.Dataset.from_list(rows) for side, rows in SIDES.items()}
    folder = str(tmp_path / "saved")
    datasets.DatasetDict(splits).save_to_disk(folder, num_shards={"train": 2, "test": 1})
    check_sides(FilesOptions(train=folder, heldout=folder))
    check_sides(FilesOptions(train=f"{folder}/train", heldout=f"{folder}/test"))
    datasets.DatasetDict(test=splits["test"]).save_to_disk(f"{folder}-test")
    with pytest.raises(
        LampoError, match=r"has no split train\. It has: test\. Give a file, or the folder of one split"
    ):
        FilesOptions(train=f"{folder}-test", heldout_fraction=0.5).load()


def test_a_saved_data_set_without_splits(tmp_path):
    folder = str(tmp_path / "saved")
    rows = [*SIDES["train"], *SIDES["test"]]
    datasets.Dataset.from_list(rows).select(range(5, -1, -1)).save_to_disk(folder)  # in the order of the selection
    task = FilesOptions(train=folder, heldout=folder).load()
    assert [problem.prompt for problem in task.heldout] == [row["prompt"] for row in reversed(rows)]
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(LampoError, match="not a readable data set of save_to_disk"):
        FilesOptions(train=folder, heldout=folder).load()
    (tmp_path / "saved" / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    (tmp_path / "saved" / "a.arrow").write_text("not arrow")
    with pytest.raises(LampoError, match="not a readable Arrow file"):
        FilesOptions(train=folder, heldout=folder).load()


SNAPSHOTS = {
    "files in data": ("data/train-00000-of-00002", "data/train-00001-of-00002", "data/test-00000-of-00001"),
    "folders": ("train/0000", "train/0001", "validation/0000"),
    "files at the top": ("my_train_a", "my_train_b", "dev"),
}


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "csv"])
@pytest.mark.parametrize("layout", list(SNAPSHOTS))
def test_a_snapshot_of_the_hub(tmp_path, ending, layout):
    first, second, test = (tmp_path / f"{name}.{ending}" for name in SNAPSHOTS[layout])
    for file, rows in ((first, SIDES["train"][:2]), (second, SIDES["train"][2:]), (test, SIDES["test"])):
        file.parent.mkdir(parents=True, exist_ok=True)
        if ending == "parquet":
            parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        elif ending == "jsonl":
            write_jsonl(file, rows)
        else:
            file.write_text("prompt,answer\n" + "".join(f"{row['prompt']},{row['answer']}\n" for row in rows))
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "train.jsonl").write_text("{")
    (tmp_path / "dataset_infos.json").write_text("{")
    (tmp_path / "README.md").write_text("a card")
    options = FilesOptions(train=str(tmp_path), heldout=str(tmp_path))
    if ending == "csv":
        assert [problem.answer for problem in options.load().train] == ["00", "01", "02"]
    else:
        check_sides(options)
    assert len(load_benchmark("jsonl", {"jsonl": str(tmp_path)})) == 3  # the task's name of before


def test_a_snapshot_with_several_data_sets_is_not_guessed_at(tmp_path):
    for name in ("main", "socratic"):
        (tmp_path / name).mkdir()
        for side, rows in SIDES.items():
            write_jsonl(tmp_path / name / f"{side}.jsonl", rows)
    with pytest.raises(LampoError, match=re.escape("holds several data sets (main/train.jsonl, socratic/train.jsonl)")):
        FilesOptions(train=str(tmp_path), heldout_fraction=0.5).load()
    check_sides(FilesOptions(train=str(tmp_path / "main"), heldout=str(tmp_path / "main")))
    (tmp_path / "main" / "test.jsonl").unlink()
    with pytest.raises(LampoError, match="has no split test or validation. It has: train"):
        FilesOptions(train=str(tmp_path / "main"), heldout=str(tmp_path / "main")).load()


def test_the_name_of_before_is_accepted():
    options = TypeAdapter(AnyTask).validate_python({"name": "jsonl", "train": "a", "heldout_fraction": 0.1})
    assert options == FilesOptions(train="a", heldout_fraction=0.1)
