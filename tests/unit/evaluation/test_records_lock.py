from pathlib import Path

import pytest

from lampo.evaluation.records import Records
from lampo.types import LampoError


def test_two_evaluations_do_not_write_into_one_folder(tmp_path: Path) -> None:
    first = Records(tmp_path / "gsm8k", {"samples": 1})
    with pytest.raises(LampoError, match="The evaluation in .*gsm8k is under way in process"):
        Records(tmp_path / "gsm8k", {"samples": 1})
    del first
    Records(tmp_path / "gsm8k", {"samples": 1})
