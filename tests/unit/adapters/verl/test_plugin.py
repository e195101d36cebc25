"""The estimator inside verl's own functions: what verl loads, what is patched, and what is not."""
# ruff: noqa: E402

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import types
from typing import Any

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed: make test-verl")
pytestmark = pytest.mark.filterwarnings("ignore")  # verl warns of each engine that is not installed

import numpy
import verl.experimental.separation.ray_trainer as separation
import verl.trainer.ppo.ray_trainer as trainer
import verl.trainer.ppo.v1.utils as v1
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo import core_algos

from lampo import LampoError
from lampo.adapters.verl import plugin
from lampo.adapters.verl.advantages import advantages_of

from .test_advantages import batch_of


def data_of(seed: int = 0) -> DataProto:
    batch, uids = batch_of(seed)
    return DataProto.from_single_dict({**batch, "uid": numpy.array(uids, dtype=object)})


def expected(seed: int = 0, settings: dict[str, Any] | None = None) -> torch.Tensor:
    batch, uids = batch_of(seed)
    return advantages_of(batch, batch["token_level_rewards"], batch["response_mask"], uids, settings)


def fresh(program: str, **environment: str) -> Any:
    """What a program prints as JSON, in a new process."""
    command = [sys.executable, "-W", "ignore", "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, env=os.environ | environment)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_importing_verl_registers_the_estimator_and_loads_nothing_else() -> None:
    told = fresh(
        "import sys, json, verl; before = sorted(m for m in sys.modules if m.startswith('verl.trainer') or m.startswith('lampo.'))\n"
        "from verl.trainer.ppo import core_algos\n"
        "print(json.dumps([before, 'lampo' in core_algos.ADV_ESTIMATOR_REGISTRY]))"
    )
    assert told[1] is True
    assert set(told[0]) <= {"lampo.adapters", "lampo.adapters.verl", "lampo.adapters.verl.plugin", "lampo.types"}


def test_without_plugins_verl_refuses_the_estimator() -> None:
    program = (
        "import json\nfrom verl.trainer.ppo import core_algos\n"
        "try: core_algos.get_adv_estimator_fn('lampo'); said = None\n"
        "except ValueError as error: said = str(error)\n"
        "print(json.dumps(said))"
    )
    assert "lampo" in fresh(program, VERL_USE_EXTERNAL_PLUGINS="none")


def test_one_function_is_patched_and_everyone_has_it() -> None:
    assert trainer.compute_advantage is v1.compute_advantage is separation.compute_advantage
    assert inspect.unwrap(trainer.compute_advantage).__code__.co_filename == trainer.__file__
    plugin.install()
    assert not hasattr(trainer.compute_advantage.__wrapped__, "__wrapped__")


@pytest.mark.parametrize("settings", [{}, {"weight": "winner"}, {"name": "rloo"}, {"scores_from": "sampler"}])
@pytest.mark.parametrize("version", ["V0", "V1"])
def test_verls_advantages_are_ours(version: str, settings: dict[str, Any]) -> None:
    config = OmegaConf.create({"lampo": settings} if settings else {})
    if version == "V0":
        data = trainer.compute_advantage(data_of(), adv_estimator="lampo", config=config)
    else:
        data = v1.compute_advantage_for_multi_trajectories(data_of(), [], adv_estimator="lampo", config=config)
    assert torch.equal(data.batch["advantages"], expected(settings=settings))
    assert torch.equal(data.batch["returns"], data.batch["advantages"])


def test_verls_own_estimators_are_what_they_were() -> None:
    for name in ("grpo", "rloo", "opo"):
        data, other = data_of(), data_of()
        trainer.compute_advantage(data, adv_estimator=name, config=OmegaConf.create({}))
        trainer.compute_advantage.__wrapped__(other, adv_estimator=name, config=OmegaConf.create({}))
        torch.testing.assert_close(
            data.batch["advantages"], other.batch["advantages"], rtol=0, atol=0, equal_nan=True
        )  # opo divides by the length, which is 0 in padding


def compute_advantage_of_pr_7473(data: Any, adv_estimator: Any, config: Any = None, **_: Any) -> Any:
    """verl's, as pull request 7473 would have it: an estimator that takes the batch is given it."""
    function = core_algos.get_adv_estimator_fn(adv_estimator)
    given = {name: data.batch[name] for name in ("token_level_rewards", "response_mask")} | {"config": config}
    if "uid" in data.non_tensor_batch:
        given["index"] = data.non_tensor_batch["uid"]
    parameters = inspect.signature(function).parameters
    for name, value in (("non_tensor_batch", data.non_tensor_batch), ("batch", data.batch)):
        if name in parameters or any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            given[name] = value
    data.batch["advantages"], data.batch["returns"] = function(**given)
    return data


def test_a_verl_that_gives_the_batch_is_not_patched() -> None:
    newer = types.ModuleType("verl.newer")
    newer.DataProto, newer.core_algos = DataProto, core_algos  # pyright: ignore[reportAttributeAccessIssue]
    newer.compute_advantage = compute_advantage_of_pr_7473  # pyright: ignore[reportAttributeAccessIssue]
    plugin.give_batch(newer)
    assert newer.compute_advantage is compute_advantage_of_pr_7473
    data = newer.compute_advantage(data_of(), adv_estimator="lampo", config=OmegaConf.create({}))
    assert torch.equal(data.batch["advantages"], expected())
    assert "lampo_probe" not in core_algos.ADV_ESTIMATOR_REGISTRY


def test_a_verl_that_cannot_be_asked_is_patched_and_works() -> None:
    def compute_advantage(data: Any, adv_estimator: Any, something_new: Any, config: Any = None) -> Any:
        return trainer.compute_advantage.__wrapped__(data, adv_estimator, config=config)

    newer = types.ModuleType("verl.newer")
    newer.DataProto, newer.core_algos = DataProto, core_algos  # pyright: ignore[reportAttributeAccessIssue]
    newer.compute_advantage = compute_advantage  # pyright: ignore[reportAttributeAccessIssue]
    plugin.give_batch(newer)
    data = newer.compute_advantage(data_of(), "lampo", 1, config=OmegaConf.create({}))
    assert torch.equal(data.batch["advantages"], expected())


def test_a_verl_that_has_moved_what_we_need_raises_where_the_estimator_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(plugin, "_refusals", [])
    plugin._attempt(plugin.give_batch, types.ModuleType("verl.other"))
    assert "verl.other" in caplog.text
    with pytest.raises(LampoError, match="This verl has moved what LamPO relies on in verl.other"):
        trainer.compute_advantage(data_of(), adv_estimator="lampo", config=OmegaConf.create({}))
    trainer.compute_advantage(data_of(), adv_estimator="grpo", config=OmegaConf.create({}))


def test_wrong_settings_reach_the_user() -> None:
    with pytest.raises(LampoError, match="algorithm.lampo.wight"):
        trainer.compute_advantage(
            data_of(), adv_estimator="lampo", config=OmegaConf.create({"lampo": {"wight": "winner"}})
        )


def test_the_estimator_alone_says_what_it_lacks() -> None:
    batch, uids = batch_of()
    with pytest.raises(LampoError, match="without verl's batch"):
        plugin.estimator(batch["token_level_rewards"], batch["response_mask"], index=uids)
