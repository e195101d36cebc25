"""Programs judged by the verifier `code`, and tests of some."""

from lampo.types import Verdict
from lampo.verify import CodeOptions
from lampo.verify.code.tests import ProgramTests, from_asserts, from_input_output

from .sandboxed import sandbox_or_skip

ADD = from_input_output({"inputs": ["1 2\n", "3 4\n", "5 6\n"], "outputs": ["3\n", "7\n", "11\n"]})
SQUARE = from_input_output({"fn_name": "square", "inputs": [[2], [3]], "outputs": [[4], [9]]})
ASSERTS = from_asserts(["assert square(2) == 4", "assert square(3) == 9"])


def judged(code: str, tests: ProgramTests, **options: object) -> Verdict:
    sandbox_or_skip()
    return CodeOptions(**options).verify(f"Thus:\n```python\n{code}\n```\n", tests.dump())  # pyright: ignore
