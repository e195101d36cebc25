"""The verifiers need pydantic and mpmath: judged in a process in which all else that LamPO installs cannot be imported."""

import json
import os
import subprocess
import sys

ABSENT = [
    "torch",
    "transformers",
    "numpy",
    "rich",
    "typer",
    "click",
    "yaml",
    "rapidfuzz",
    "datasets",
    "sympy",
    "plotly",
    "jinja2",
    "scipy",
]
CASES = [
    ("numeric", "7 + 12 = 19", "19", {}),
    ("exact", "east", "East", {"ignore_case": True}),
    ("choice", "The answer is (B).", "B", {}),
    ("math", r"Thus \boxed{\frac{\sqrt{12}}{2}}.", r"\sqrt 3", {}),
    ("python:mine.even", "The last word is 4", "", {}),
]
SCRIPT = """
import json, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
ABSENT = set(json.loads(sys.argv[1]))
sys.meta_path.insert(0, Blocked())
from lampo.verify import VerifierPool, verifier, verify
for name, completion, answer, options in json.loads(sys.argv[2]):
    assert verify(name, completion, answer, **options).status == "right", name
    with VerifierPool(workers=1) as pool:
        (verdict,) = pool.verify(verifier(name, **options), [completion], [answer])
    assert verdict.status == "right", (name, verdict)
assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
"""


def test_each_verifier_judges_where_only_pydantic_and_mpmath_are(tmp_path):
    (tmp_path / "mine.py").write_text(
        "def even(completion, answer):\n    return int(completion.split()[-1]) % 2 == 0\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(ABSENT), json.dumps(CASES)],
        capture_output=True, text=True, env=environment, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_metric_of_the_page_does_what_lighteval_asks_for():
    """lighteval itself is not installed: its own classes stand in by what its documentation says they hold."""
    from types import SimpleNamespace

    from lampo.verify import verify

    def correct(doc, model_response):
        return verify("math", model_response.final_text[0], doc.choices[doc.gold_index]).status == "right"

    doc = SimpleNamespace(choices=[r"\frac12"], gold_index=0)
    assert correct(doc, SimpleNamespace(final_text=["The answer is 0.5."]))
    assert not correct(doc, SimpleNamespace(final_text=["The answer is 0.4."]))
