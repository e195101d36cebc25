"""What runs inside the sandbox: a script as it is, or calls of functions whose values are stated."""

from __future__ import annotations

import marshal
from typing import Any

from .sandbox import Limits, Outcome, Sandbox

SCRIPT = """\
import builtins, os, sys
builtins.exit = builtins.quit = sys.exit
sys.argv = ["main.py"]
sys.path.insert(0, "/tmp")
__file__ = os.path.abspath("main.py")
with open(__file__) as file: code = compile(file.read(), "main.py", "exec")
del builtins, file, os, sys
exec(globals().pop("code"))
"""
"""The program is this module itself, `__main__`, and finds no name in it that a script would not find."""
CALLS = r"""import builtins, marshal, os, sys
builtins.exit = builtins.quit = sys.exit
asked = marshal.loads(sys.stdin.buffer.read())
results = os.dup(1)
os.dup2(2, 1)
def quoted(text):
    text = str.__str__(text)
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text: return f'"{text}"'
    units = memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    return '"' + "".join("\\u%04x" % unit for unit in units) + '"'
def stated(value, depth=0):
    if depth > 50: raise ValueError("nested too deeply")
    if value is None: return "null"
    if isinstance(value, bool): return "true" if value else "false"
    if isinstance(value, int): return int.__repr__(value)
    if isinstance(value, float): return float.__repr__(value).replace("nan", "NaN").replace("inf", "Infinity")
    if isinstance(value, str): return quoted(value)
    def listed(kind, items): return '{"%s": [%s]}' % (kind, ", ".join([stated(item, depth + 1) for item in items]))
    if isinstance(value, dict):
        pairs = [f"[{stated(key, depth + 1)}, {stated(item, depth + 1)}]" for key, item in value.items()]
        return '{"dict": [%s]}' % ", ".join(pairs)
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind): return listed(kind.__name__, value)
    if hasattr(value, "__next__") or isinstance(value, range): return listed("list", value)
    if isinstance(value, complex): return listed("complex", (value.real, value.imag))
    return '{"other": %s}' % quoted(type(value).__name__)
module = sys.modules["solution"] = type(sys)("solution")
space = vars(module)
exec(compile(asked["setup"], "setup.py", "exec"), space)
exec(compile(asked["code"], "solution.py", "exec"), space)
def value_of(call):
    if call["name"] is None: return eval(compile(call["expression"], "test.py", "eval"), space)
    function = space[call["name"]] if call["name"] in space else getattr(space["Solution"](), call["name"])
    return function(*call["arguments"])
for call in asked["calls"]:
    try: value = stated(value_of(call))
    except Exception as error:
        if len(asked["calls"]) == 1: raise
        value = '{"raised": %s}' % quoted(type(error).__name__)
    said = value.encode() + b"\n"
    while said: said = said[os.write(results, said):]
"""
"""It states the value of each call as JSON, in a line of its own: one that crashes or hangs takes nothing from those before it. It imports
nothing that Python does not start with, for `json` alone takes longer than that start."""


def run_calls(calls: list[dict[str, Any]], code: str, setup: str, sandbox: Sandbox, limits: Limits) -> Outcome:
    """Call functions of a program, or evaluate expressions after it. Standard output has the stated values, a line each.

    Args:
        calls: each with a `name` and `arguments`, or with the name None and an `expression`.
        code: the program.
        setup: runs before it.
        sandbox: where it runs.
        limits: of all calls together.
    """
    asked = marshal.dumps({"calls": calls, "setup": setup, "code": code})  # read by this same Python, inside
    return sandbox.run({}, command(sandbox, CALLS), asked, limits)


def command(sandbox: Sandbox, program: str) -> list[str]:
    """What starts one of the programs above."""
    imports = f"import sys; sys.path += {sandbox.import_from!r}\n" if sandbox.import_from else ""
    return [sandbox.python, "-I", "-S", "-c", imports + program]
