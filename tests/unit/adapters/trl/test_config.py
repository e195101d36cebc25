# ruff: noqa: E402
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

for package in ("trl", "accelerate", "datasets", "pandas", "jinja2"):
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'lampo[trl]'")

from lampo import LampoError
from lampo.adapters.estimators import reads_logprobs
from lampo.adapters.trl import LamPOConfig

pytestmark = pytest.mark.filterwarnings("ignore")


def configured(folder: Path, **settings: Any) -> LamPOConfig:
    return LamPOConfig(output_dir=str(folder), use_cpu=True, bf16=False, report_to=[], **settings)


def test_the_default_is_lampo_as_the_preset_means_it(tmp_path: Path) -> None:
    options = configured(tmp_path).estimator()
    assert options.name == "pairwise"
    assert options.settings()["scale"] == "group_std"


def test_options_of_the_advantage_come_as_a_dict_or_from_the_command_line(tmp_path: Path) -> None:
    from trl import TrlParser

    assert configured(tmp_path, advantage_options={"weight": "winner"}).estimator().settings()["weight"] == "winner"
    words = ["--output_dir", str(tmp_path), "--use_cpu", "--bf16", "false", "--advantage", "grpo"]
    (config,) = TrlParser((LamPOConfig,)).parse_args_and_config([*words, "--advantage_options", '{"std": false}'])
    assert isinstance(config, LamPOConfig)
    assert config.estimator().settings() == {"std": False, "negative": 1.0}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"advantage": "pairwize"},
            r"There is no advantage 'pairwize' \(advantage\). Known: pairwise, grpo, rloo, .*, and python:",
        ),
        ({"advantage_options": {"wait": "winner"}}, r"^advantage_options.wait: Extra inputs .* \(advantage pairwise\)"),
        ({"advantage_options": {"temperature": -1.0}}, r"^advantage_options.temperature"),
        ({"advantage": "prime"}, r"learns a process reward model beside the policy, which TRL does not train"),
        ({"scores_from": "vllm"}, r"scores_from must be one of trainer, sampler; not 'vllm'"),
        (
            {"scale_rewards": "none"},
            r"scale_rewards='none' is a setting of TRL's own advantage.*advantage_options=\{'scale': 'none'\}",
        ),
        ({"scale_rewards": False, "advantage": "grpo"}, r"advantage_options=\{'std': False\}"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, r"multi_objective_aggregation='normalize_then_sum'"),
        ({"loss_type": "newest"}, r"loss_type='newest' is unknown to this LamPO"),
        ({"top_p": 0.9}, r"^top_p=0.9 changes the distribution that tokens are drawn from"),
        ({"top_k": 20, "min_p": 0.1}, r"^top_k=20, min_p=0.1 changes"),
        ({"repetition_penalty": 1.1}, r"^repetition_penalty=1.1 changes"),
        ({"generation_kwargs": {"typical_p": 0.5}}, r"^generation_kwargs\['typical_p'\] changes"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(LampoError, match=message):
        configured(tmp_path, **settings)


def test_what_is_harmless_there_is_not_refused(tmp_path: Path) -> None:
    configured(tmp_path, top_p=0.9, scores_from="sampler")  # those are the log-probs that were sampled with
    configured(tmp_path, top_p=0.9, advantage="grpo")  # which reads no log-probs
    configured(tmp_path, generation_kwargs={"stop_strings": ["\n"]})


def test_which_estimators_read_logprobs(tmp_path: Path) -> None:
    read = {
        name: reads_logprobs(configured(tmp_path, advantage=name).estimator())
        for name in ("pairwise", "otb", "grpo", "rloo", "reinforce_pp", "shrinkage", "maxrl")
    }
    assert [name for name, reads in read.items() if reads] == ["pairwise", "otb"]
