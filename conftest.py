"""The code blocks of README.md and of the pages of docs/ are tests; tests/helpers/documented.py says what is asked of them."""

from importlib.util import find_spec

from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from tests.helpers import documented

pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser(language="python", evaluator=documented.python_block),
        CodeBlockParser(language="yaml", evaluator=documented.yaml_block),
        CodeBlockParser(language="bash", evaluator=documented.bash_block),
        SkipParser(),
    ],
    patterns=["README.md", "docs/*.md"],
    fixtures=["tmp_path", "monkeypatch"],
).pytest()

NEEDS = {
    "src/lampo/adapters/verl/reward_manager.py": "verl",  # it is a class of verl's
    "src/lampo/model/decode_kernels.py": "triton",
    "src/lampo/model/update_kernels.py": "triton",
}
collect_ignore = [path for path, package in NEEDS.items() if not find_spec(package)]
