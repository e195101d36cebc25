"""AdamW with a schedule that is a function of the step, and a state without pickle."""

from __future__ import annotations

import math
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from ..config.schema import OptimizerOptions
from ..model.policy import Policy
from ..types import NotFinite


def learning_rate(step: int, total_steps: int, options: OptimizerOptions) -> float:
    """Learning rate of step 1, 2, ..., total_steps: a linear rise, then constant or a cosine that ends at 0.

    >>> [learning_rate(step, 4, OptimizerOptions(learning_rate=1.0, warmup_steps=2)) for step in (1, 2, 3, 4)]
    [0.5, 1.0, 1.0, 1.0]
    """
    if step <= options.warmup_steps:
        return options.learning_rate * step / options.warmup_steps
    if options.schedule == "constant":
        return options.learning_rate
    progress = (step - options.warmup_steps) / max(1, total_steps - options.warmup_steps)
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


class Optimizer:
    """AdamW over the trainable parameters of a policy."""

    def __init__(self, policy: Policy, options: OptimizerOptions, total_steps: int) -> None:
        self._options = options
        self._total_steps = total_steps
        self._parameters = policy.trainable_parameters()
        self._adamw = torch.optim.AdamW(
            self._parameters.values(),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            fused=policy.device.type in ("cpu", "cuda"),
        )

    @property
    def adamw(self) -> torch.optim.AdamW:
        """The optimiser itself, for an engine that steps it on its own."""
        return self._adamw

    def step(self, step: int) -> dict[str, float]:
        """Clip the gradient, move the weights, clear the gradient; `step` counts from 1 and sets the learning rate.

        Raises:
            NotFinite: the gradient is not finite, and of which weights; they are left as they were.
        """
        gradients = {name: parameter.grad for name, parameter in self._parameters.items() if parameter.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        rate = learning_rate(step, self._total_steps, self._options)
        record = {"optimizer/learning_rate": rate, "optimizer/gradient_norm": float(norm)}
        if not math.isfinite(record["optimizer/gradient_norm"]):
            raise NotFinite(_where_not_finite(gradients))
        torch.nn.utils.clip_grads_with_norm_(self._parameters.values(), self._options.max_gradient_norm, norm)
        for group in self._adamw.param_groups:
            group["lr"] = rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return record

    def state(self) -> dict[str, Tensor]:
        """The moments and counts as named tensors."""
        return {
            f"{name}/{key}": value
            for name, parameter in self._parameters.items()
            for key, value in self._adamw.state.get(parameter, {}).items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned."""
        for full_name, value in state.items():
            name, _, key = full_name.rpartition("/")
            parameter = self._parameters[name]
            device = parameter.device if self._adamw.defaults["fused"] or key != "step" else "cpu"
            self._adamw.state[parameter][key] = value.to(device)


def _where_not_finite(gradients: dict[str, Tensor]) -> str:
    """Names are in the order of the forward pass, so the last bad one is where the backward pass went wrong first."""
    bad = [name for name, gradient in gradients.items() if not gradient.isfinite().all()]
    if not bad:
        return "The gradient is too large: its norm is not finite."
    return f"The gradient is not finite: that of {len(bad)} of {len(gradients)} weights, last in the model {bad[-1]}."


def save_optimizer(folder: Path, optimizer: Optimizer | None) -> None:
    """Write an optimiser's state into a folder."""
    state = {} if optimizer is None else {name: value.contiguous() for name, value in optimizer.state().items()}
    safetensors.torch.save_file(state, folder / "optimizer.safetensors")


def load_optimizer(folder: Path, optimizer: Optimizer) -> None:
    """Put back what `save_optimizer` wrote."""
    optimizer.load_state(safetensors.torch.load_file(folder / "optimizer.safetensors"))
