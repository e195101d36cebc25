"""Rows that nobody could judge, in what verl's workers are given. No verl needed."""

from __future__ import annotations

import types
from typing import Any

import pytest
import torch
from torch import Tensor

from lampo.adapters.verl.denominators import count_known_rows, leave_out, mark
from lampo.adapters.verl.unknown import UNKNOWN

LENGTHS = (3, 2, 4)


def nested(*rows: Tensor) -> Tensor:
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)


def data_of(unknown: int | None, *, padded: bool) -> dict[str, Any]:
    """Three rows, one of which is marked."""
    masks = [torch.ones(length, dtype=torch.int64) for length in LENGTHS]
    advantages = [torch.full((length,), UNKNOWN if row == unknown else 0.5) for row, length in enumerate(LENGTHS)]
    made: dict[str, Any] = {"global_batch_size": 6}
    for name, rows in (("response_mask", masks), ("loss_mask", masks), ("advantages", advantages)):
        made[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True) if padded else nested(*rows)
    return made


def sizes(mask: Tensor) -> list[int]:
    return [int(row.sum()) for row in mask.unbind()]


@pytest.mark.parametrize("padded", [True, False])
def test_the_masks_of_an_unknown_row_are_emptied_and_the_others_are_left_alone(padded: bool) -> None:
    data = data_of(1, padded=padded)
    leave_out(data)
    assert sizes(data["loss_mask"]) == sizes(data["response_mask"]) == [3, 0, 4]


def test_the_estimator_marks_rows_whose_mask_it_emptied_and_no_padding() -> None:
    before = torch.tensor([[1, 1], [1, 0], [0, 0]])
    after = torch.tensor([[0, 0], [1, 0], [0, 0]])
    marked = mark(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]]), before, after)
    assert torch.equal(marked, torch.tensor([[UNKNOWN, UNKNOWN], [2.0, 0.0], [0.0, 0.0]]))


class Worker:
    """What `verl.workers.engine_workers.TrainingWorker` is for the patch."""

    device_name = "cpu"
    engine = types.SimpleNamespace(get_data_parallel_group=lambda: None)

    def train_batch(self, data: dict[str, Any]) -> dict[str, Any]:
        """Update."""
        return data


def workers() -> types.ModuleType:
    module = types.ModuleType("verl.workers.engine_workers")
    module.TrainingWorker = type("TrainingWorker", (Worker,), {})  # pyright: ignore[reportAttributeAccessIssue]
    module.tu = types.SimpleNamespace(  # pyright: ignore[reportAttributeAccessIssue]
        get=lambda data, key: data.get(key), assign_non_tensor=lambda data, **values: data.update(values)
    )
    count_known_rows(module)
    return module


@pytest.mark.parametrize(
    ("unknown", "elsewhere", "rows", "tokens"),
    [
        (1, (0, 3), 5, 7),  # six rows over two ranks
        (None, (1, 3), 5, 9),  # the unknown one is on the other rank
        (None, (0, 3), 6, 9),
    ],
)
def test_a_mini_batch_is_divided_by_the_known_rows_of_all_ranks(
    unknown: int | None, elsewhere: tuple[int, int], rows: int, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts, group: counts.add_(torch.tensor(elsewhere)))
    data = workers().TrainingWorker().train_batch(data_of(unknown, padded=False))
    assert data["global_batch_size"] == rows
    assert sum(sizes(data["loss_mask"])) == tokens


def test_a_mini_batch_of_unknown_rows_alone_is_not_divided_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda counts, group: None)
    data = data_of(None, padded=False)
    data["advantages"] = nested(*(torch.full((length,), UNKNOWN) for length in LENGTHS))
    data = workers().TrainingWorker().train_batch(data)
    assert data["global_batch_size"] == 6
    assert sum(sizes(data["loss_mask"])) == 9
