"""The verifiers need pydantic and mpmath: judged in a process in which all else that LamPO installs cannot be imported."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

PAGE = Path(__file__).parents[3] / "docs" / "verifiers-alone.md"
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


LIGHTEVAL = {
    "metrics.metrics_sample": {"SampleLevelComputation": object},
    "metrics.utils.metric_utils": {"SampleLevelMetric": SimpleNamespace},
    "tasks.lighteval_task": {"LightevalTaskConfig": SimpleNamespace},
    "tasks.requests": {"Doc": SimpleNamespace, "SamplingMethod": SimpleNamespace(GENERATIVE="generative")},
}


def test_the_file_of_the_page_is_a_task_of_lighteval(monkeypatch):
    """lighteval itself is not installed: what the file imports of it stands in."""
    for name, attributes in LIGHTEVAL.items():
        module = ModuleType(f"lighteval.{name}")
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    (file,) = re.findall(r"```python\n(import numpy.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    mine = {}
    exec(file, mine)
    (task,) = mine["TASKS_TABLE"]
    doc = task.prompt_function({"prompt": "1/2 = ?", "answer": r"\frac12"}, task.name)
    (metric,) = task.metrics
    for text, value in (("The answer is 0.5.", 1.0), ("The answer is 0.4.", 0.0)):
        assert metric.sample_level_fn.compute(doc, SimpleNamespace(final_text=[text])) == value
    assert metric.corpus_level_fn([1.0, 0.0]) == 0.5
