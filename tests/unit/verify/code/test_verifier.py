"""The code verifier: what is run, what is compared, and programs that want a verdict they have not earned."""

import json

import pytest

from lampo.types import LampoError, Verdict
from lampo.verify import CodeOptions, VerifierPool
from lampo.verify.code.sandbox import SandboxError
from lampo.verify.code.tests import (
    ProgramTests,
    from_asserts,
    from_input_output,
    from_livecodebench,
)
from lampo.verify.code.verifier import last_code_block

from ....helpers.judged_programs import ADD, ASSERTS, SQUARE, judged
from ....helpers.sandboxed import sandbox_or_skip

AS_A_SCRIPT = """
import pickle, sys, typing
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path
@dataclass
class Pair:
    left: int
    right: "Number"
Number = int
def total(pair: Pair) -> Number:
    return pair.left + pair.right
if __name__ == "__main__":
    assert typing.get_type_hints(Pair) == {"left": int, "right": int}
    assert Path(__file__).is_file() and sys.modules["__main__"].total is total
    pair = pickle.loads(pickle.dumps(Pair(*map(int, input().split()))))
    with Pool(1) as pool:
        print(pool.map(total, [pair])[0])
"""
SQUARES = from_input_output({"fn_name": "f", "inputs": [[0], [1], [2], [3]], "outputs": [[0], [1], [4], [9]]})
FORGERIES = [
    "import sys; sys.exit(0)",
    "import os; os._exit(0)",
    "raise SystemExit",
    "print('right')",
    "print('3/3 tests'); print('{\"status\": \"right\"}')",
    "import builtins\nbuiltins.print = lambda *a: None\nclass Equal:\n    def __eq__(self, o): return True\ndef square(x): return Equal()\n",
    "class Equal(int):\n    def __eq__(self, o): return True\n    def __hash__(self): return 0\ndef square(x): return Equal(5)\nprint(Equal(5))",
    "import json\njson.dumps = lambda *a, **k: 'true'\njson.loads = lambda *a: True\ndef square(x): return None",
    "import os\nfor fd in range(3, 20):\n    try: os.write(fd, b'4')\n    except OSError: pass\nos._exit(0)",
    "import os\nfor fd in range(20):\n    try: os.close(fd)\n    except OSError: pass",
    "import sys\nframe = sys._getframe()\nwhile frame:\n    print(frame.f_globals.get('asked'), frame.f_locals.get('asked'))\n    frame = frame.f_back",
    "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'expected' in o: print(o['expected'])",
    "import os\nfor base, _, files in os.walk('/tmp'):\n    for f in files: print(open(os.path.join(base, f)).read())",
    "import atexit, os\natexit.register(lambda: os._exit(0))",
    "import os\nif os.fork(): os._exit(0)\nos.setsid()",
    "import threading, os\nthreading.Thread(target=lambda: os._exit(0)).start()",
    "def square(x):\n    import os\n    os._exit(0)",
    "def square(x):\n    raise SystemExit(0)",
    "import builtins\nbuiltins.isinstance = lambda *a: True\ndef square(x): return object()",
    "def square(x):\n    def endless():\n        while True: yield 4\n    return endless()",
    "import ctypes\nctypes.CDLL(None).ptrace(16, 1, 0, 0)",  # stops the sandbox's first process, and itself with it
    "import sys\nsys.modules['lampo'] = None\nopen('main.py', 'w').write('print(3)')",
]


def test_the_last_complete_block_counts() -> None:
    assert last_code_block("```python\none\n```\n```py\ntwo\n```") == "two\n"
    assert last_code_block("```\none\n```\n```\ntwo\n```") == "two\n"
    assert last_code_block("```python\none\n```\nThe output is:\n```\n3\n```") == "one\n"
    assert last_code_block("```\none\n```\n```text\n3\n```") == "one\n"
    assert last_code_block("```python\none\n```\n```\ntwo") == "one\n"
    assert last_code_block("```cpp\nint main() {}\n```") is None
    assert last_code_block("```python\none\n```\n```cpp\ntwo\n```") == "one\n"
    assert last_code_block("```python\none") is None
    assert last_code_block("<think>```python\none\n```</think>none") is None
    assert last_code_block("<think>```python\none\n```") is None
    assert last_code_block("````python\nx = '''\n```\n'''\n````") == "x = '''\n```\n'''\n"
    assert last_code_block("print(1)") is None
    assert last_code_block("```python\n" * 20_000) is None  # and in linear time
    assert last_code_block("```" + " " * 500_000 + "`") is None  # the same
    assert last_code_block("```  python  main.py\none\n```  ") == "one\n"
    assert CodeOptions().at_once("no code", ADD.dump()) == Verdict("wrong", detail="no code given", score=0.0)
    assert CodeOptions().at_once("```\n1\n```", ADD.dump()) is None
    for text in ("no code", "```\n1\n```"):
        assert (CodeOptions().at_once(text, "no tests") or CodeOptions().verify(text, "no tests")).status == "unknown"


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ("- So:\n\n  ```py\n  if x:\n\n      one\n  two\n  ```", "if x:\n\n    one\ntwo\n"),
        ("1. So:\n   ```\n   if x:\n       one\n   ```\n", "if x:\n    one\n"),
        ("\t```python\n\tif x:\n\t\tone\n\t```", "if x:\n\tone\n"),
        ("   ```python\none\n   ```", "one\n"),
        ("```python\n  one\n  ```", "  one\n"),  # the fence alone says how much is not the program's own
    ],
)
def test_a_block_in_a_list_loses_the_indent_of_its_fence(block: str, code: str) -> None:
    assert last_code_block(block) == code


def test_programs() -> None:
    right = "a, b = map(int, input().split())\nprint(a + b)\nexit()"
    assert judged(right, ADD) == Verdict("right", right + "\n", "3/3 tests", score=1.0)
    for code, detail, score in (
        ("print(3)", "1/3 tests; test 2: wrong answer", 1 / 3),
        ("print(7)", "0/3 tests; test 1: wrong answer", 0.0),
        ("1 / 0", "0/3 tests; test 1: ended with status 1: ZeroDivisionError: division by zero", 0.0),
        ("while True: pass", "0/3 tests; test 1: took too long", 0.0),
        ("x = bytearray(2**31)", "0/3 tests; test 1: used too much memory", 0.0),
        ("while True: print(1)", "0/3 tests; test 1: wrote too much", 0.0),
    ):
        verdict = judged(code, ADD, test_timeout_s=0.5 if code == "while True: pass" else 2.0)
        assert (verdict.status, verdict.detail, verdict.score) == ("wrong", detail, pytest.approx(score))


def test_a_program_is_the_script_that_it_would_be_outside() -> None:
    assert judged(AS_A_SCRIPT, ADD) == Verdict("right", AS_A_SCRIPT + "\n", "3/3 tests", score=1.0)
    for name in ("sys", "os", "builtins", "file", "code", "asked"):  # it imports what it uses
        assert f"NameError: name '{name}'" in judged(f"print({name})", ADD).detail
    names = judged(
        "raise ValueError(*sorted(set(globals()) - {'__annotations__', '__builtins__', '__cached__'}))", ADD
    ).detail
    assert names.endswith("ValueError: ('__doc__', '__file__', '__loader__', '__name__', '__package__', '__spec__')")


def test_partial_credit_runs_all_tests() -> None:
    verdict = judged("print({'1': 3, '3': 0, '5': 11}[input()[0]])", ADD, partial_credit=True)
    assert verdict.value == verdict.score  # the share is the reward
    assert (verdict.status, verdict.score) == ("wrong", pytest.approx(2 / 3))
    assert verdict.detail == "2/3 tests; test 2: wrong answer"


@pytest.mark.parametrize(
    ("code", "detail"),
    [
        ("f = lambda x: x * x", "4/4 tests"),
        ("f = lambda x: x", "2/4 tests; test 3: wrong answer"),
        ("f = lambda x: x * x if x != 1 else 1 / 0", "3/4 tests; test 2: raised ZeroDivisionError"),
        ("f = lambda x: x * x if x != 1 else exit()", "1/4 tests; test 2: wrong answer: no value was returned"),
        ("import os\nf = lambda x: x * x if x != 2 else os._exit(3)", "2/4 tests; test 3: ended with status 3"),
        ("def f(x):\n    while x == 1: pass\n    return x * x", "1/4 tests; test 2: took too long"),
        ("import os\nf = lambda x: os.write(3, b'[0]\\n') and x * x", "0/4 tests; test 1: wrong answer"),
        ("f = lambda x: x *", "0/4 tests; test 1: ended with status 1: SyntaxError: invalid syntax"),
    ],
)
def test_one_process_for_all_tests_takes_nothing_from_those_before_a_crash(code: str, detail: str) -> None:
    verdict = judged(code, SQUARES, one_process=True, partial_credit=True, test_timeout_s=1.0)
    assert verdict.detail.startswith(detail)
    passed, _, number = detail.partition(" ")[0].partition("/")
    assert verdict.value == int(passed) / int(number)


def test_a_function_states_any_text_and_number() -> None:
    values = ['a"b\\c\n\x7f\t', "é😀", 10**30, 1e-9, float("inf"), [["x", None], [True]], ""]
    tests = ProgramTests(type="function", fn_name="f", inputs=[[value] for value in values], outputs=values)
    code = "class Text(str): pass\ndef f(x): return Text(x) if isinstance(x, str) else x"
    assert judged(code, tests, one_process=True).detail == "7/7 tests"


def test_one_process_judges_asserts_and_starts_programs_that_read_anew() -> None:
    assert judged("def square(x): return x * x", ASSERTS, one_process=True).detail == "2/2 tests"
    assert judged("a, b = map(int, input().split())\nprint(a + b)", ADD, one_process=True).detail == "3/3 tests"


def test_waiting_for_a_processor_is_not_too_long_but_sleeping_for_ever_is() -> None:
    add = "a, b = map(int, input().split())\nprint(a + b)\nimport time\n"
    assert judged(add + "time.sleep(0.6)", ADD, test_timeout_s=0.5).status == "right"
    for never in ("time.sleep(60)", "while True: pass"):
        verdict = judged(add + never, ADD, test_timeout_s=0.5)
        assert (verdict.status, verdict.detail) == ("wrong", "0/3 tests; test 1: took too long")


@pytest.mark.parametrize("code", ["import time\ntime.sleep(60)", "while True: pass"])
def test_slow_programs_are_wrong_and_not_unknown_however_many_the_tests(code: str) -> None:
    sandbox_or_skip()
    many = from_input_output({"inputs": ["1"] * 40, "outputs": ["1"] * 40})
    verifier = CodeOptions(test_timeout_s=1.0, timeout_s=6.0, partial_credit=True)
    with VerifierPool(workers=1) as pool:
        (verdict,) = pool.verify(verifier, [f"```\n{code}\n```"], [many.dump()])
    assert (verdict.status, verdict.detail) == ("wrong", "0/40 tests; test 1: took too long")


def test_functions() -> None:
    for code in ("def square(x): return x * x", "class Solution:\n    def square(self, x):\n        return x * x"):
        assert judged(code, SQUARE).status == "right"
    assert judged("def square(x): return x * 2", SQUARE).detail == "1/2 tests; test 2: wrong answer"
    assert judged("def cube(x): return x", SQUARE).status == "wrong"
    assert judged("def square(x): print('noise'); return x * x", SQUARE).status == "right"
    pairs = ProgramTests(type="function", fn_name="f", inputs=[[1]], outputs=[[[1, 2], {"3": 0.5}, None, True]])
    assert judged("def f(x): return (1, 2), {3: 0.5}, None, True", pairs).status == "right"
    assert judged("def f(x): return (1, 2), {3: 0.5}, None, 1", pairs).status == "wrong"


def test_a_module_has_a_place_and_its_own_first_line() -> None:
    code = """
from __future__ import annotations
from dataclasses import dataclass
from typing import List
@dataclass
class Square:
    of: int
    parts: List[int]
def square(x): return Square(x, []).of ** 2
"""
    for tests in (SQUARE, from_asserts(["assert square(2) == 4"], setup="import math")):
        assert judged(code, tests).status == "right", judged(code, tests).detail
    assert (
        judged(
            "def square(x): return math.prod([x, x])", from_asserts(["assert square(2) == 4"], setup="import math")
        ).status
        == "right"
    )


def test_a_function_may_use_what_its_judge_imports() -> None:
    code = """
class Solution:
    def smallest(self, nums: List[int], k: Optional[int] = None) -> Dict[str, int]:
        heapify(nums)
        counts: DefaultDict[int, int] = defaultdict(int, Counter(nums))
        return {"smallest": heapq.heappop(nums), "twice": counts[2], "sum": reduce(operator.add, nums), "power": pow(3, 2, 7)}
"""
    row = {
        "fn_name": "smallest",
        "inputs": [[[3, 2, 2, 1]]],
        "outputs": [{"smallest": 1, "twice": 2, "sum": 7, "power": 2}],
    }
    public = [{"input": "[3, 2, 2, 1]", "output": json.dumps(row["outputs"][0]), "testtype": "functional"}]
    livecodebench = from_livecodebench(json.dumps(public), function="smallest")
    for tests in (from_input_output(row), livecodebench):
        assert judged(code, tests).status == "right", judged(code, tests).detail
        assert judged(code.replace("pow(3, 2, 7)", "3"), tests).status == "wrong"
    assert "NameError" in judged(code, livecodebench.model_copy(update={"setup": ""})).detail


@pytest.mark.parametrize("code", FORGERIES)
def test_no_forgery_is_rewarded(code: str) -> None:
    limit_s = 0.25 if "ptrace" in code else 1.0  # it hangs, until four times its limit are over
    for tests in (ADD, SQUARE, ASSERTS):
        verdict = judged(code, tests, test_timeout_s=limit_s, test_memory_mib=128)
        assert verdict.status == "wrong", verdict.detail


def test_tests_do_not_leak_into_each_other() -> None:
    code = "import os\nseen = os.path.exists('/tmp/seen')\nopen('/tmp/seen', 'w').close()\na, b = map(int, input().split())\nprint(a + b if not seen else 0)"
    assert judged(code, ADD).status == "right"


def test_in_the_pool() -> None:
    sandbox_or_skip()
    right, hanging = "```\na, b = map(int, input().split())\nprint(a + b)\n```", "```\nwhile True: pass\n```"
    with VerifierPool(workers=2) as pool:
        verifier = CodeOptions(test_timeout_s=30.0, timeout_s=5.0)
        verdicts = pool.verify(verifier, [right, hanging, right, "none"], [ADD.dump()] * 4)
    assert [verdict.status for verdict in verdicts] == ["right", "wrong", "right", "wrong"]


def test_failures_of_the_sandbox_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        python = "python"
        import_from = ()

        def run(self, *_: object) -> None:
            raise SandboxError("no control group could be made")

    monkeypatch.setattr("lampo.verify.code.verifier.find_sandbox", lambda **_: Broken())
    assert CodeOptions().verify("```\n1\n```", ADD.dump()).status == "unknown"

    def refuse(**_: object) -> None:
        raise LampoError("install bubblewrap")

    monkeypatch.setattr("lampo.verify.code.verifier.find_sandbox", refuse)
    assert CodeOptions().verify("```\n1\n```", ADD.dump()).detail == "install bubblewrap"
    with pytest.raises(LampoError, match="install bubblewrap"):
        CodeOptions().prepare()


def test_programs_import_what_the_setting_names_and_nothing_else() -> None:
    pytest.importorskip("numpy")
    tests = from_input_output({"inputs": ["1 2 3"], "outputs": ["6"]})
    code = "import numpy as np\nprint(int(np.array(input().split(), dtype=int).sum()))"
    refused = judged(code, tests)
    assert refused.status == "wrong"
    assert "No module named 'numpy'" in refused.detail
    assert judged(code, tests, packages=("numpy",), test_memory_mib=1024).status == "right"
    seen = from_input_output({"inputs": [""], "outputs": ["True"]})
    code = "import os\nprint(set(os.listdir('/packages')) <= {'numpy', 'numpy.libs'})"
    assert judged(code, seen, packages=("numpy",)).status == "right"
    function = from_input_output({"fn_name": "total", "inputs": [[[1, 2]]], "outputs": [3]})
    code = "import numpy\ndef total(numbers): return int(numpy.sum(numbers))"
    assert judged(code, function, packages=("numpy",), test_memory_mib=1024).status == "right"


def test_a_package_that_is_not_installed_is_refused_at_the_start_and_unknown_later() -> None:
    sandbox_or_skip()
    options = CodeOptions(packages=("no_such_package",))
    with pytest.raises(LampoError, match="no_such_package"):
        options.prepare()
    verdict = options.verify("```python\nprint(3)\n```", ADD.dump())
    assert verdict.status == "unknown"
    assert "pip install no_such_package" in verdict.detail
