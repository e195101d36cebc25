"""What autograd keeps between the forward and the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def kept_storages(model: nn.Module) -> Iterator[dict[int, int]]:
    """Bytes of each storage that is kept inside, by its address. Those of the model's weights are left out."""
    kept, weights = dict[int, int](), {each.untyped_storage().data_ptr() for each in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept
