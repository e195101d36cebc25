"""AdamW with a schedule that is a function of the step, and a state without pickle."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..config.schema import OptimizerOptions, TrainConfig
from ..model.policy import Policy
from ..types import LampoError, NotFinite

PARTS = ("codes", "scale", "qmap")
"""Tensors of a moment in 8 bits: its codes, a scale for each block of 256, and the number that each code stands for."""
INSTALL = "Install it with: pip install 'lampo[torchao]'"


def refuse(config: TrainConfig) -> None:
    """See before anything is loaded that the optimisers of a recipe can be made.

    Raises:
        LampoError: one needs torchao, and it is not installed.
    """
    for key, options in {"optimizer": config.optimizer, "warmstart.optimizer": config.warmstart.optimizer}.items():
        if options.eight_bit_moments and importlib.util.find_spec("torchao") is None:
            raise LampoError(f"{key}.eight_bit_moments needs the package torchao. {INSTALL}")


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
        self._adamw: torch.optim.Optimizer
        if options.eight_bit_moments:
            make, more = _torchao("torchao.optim").AdamW8bit, {}
        else:
            make, more = torch.optim.AdamW, {"fused": policy.device.type in ("cpu", "cuda")}
        self._adamw = make(
            self._parameters.values(),
            lr=options.learning_rate,
            betas=options.betas,
            weight_decay=options.weight_decay,
            **more,
        )

    @property
    def adamw(self) -> torch.optim.Optimizer:
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
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)  # torchao compiles the step, and would do so again for each other number
            else:
                group["lr"] = rate
        self._adamw.step()
        self._adamw.zero_grad(set_to_none=True)
        return record

    def state(self) -> dict[str, Tensor]:
        """The moments and counts as named tensors."""
        return {
            f"{name}/{key}": value
            for name, parameter in self._parameters.items()
            for moment, held in self._adamw.state.get(parameter, {}).items()
            for key, value in _parts(moment, held).items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `state` returned, also that of an optimiser that kept its moments in the other way."""
        tensors: dict[tuple[str, str], dict[str, Tensor]] = {}
        for full_name, value in state.items():
            name, key, *part = full_name.split("/")
            device = self._parameters[name].device if self._adamw.defaults.get("fused") or key != "step" else "cpu"
            tensors.setdefault((name, key), {})[part[0] if part else ""] = value.to(device)
        for (name, key), parts in tensors.items():
            parameter = self._parameters[name]
            held = parts[""] if key == "step" else self._moment(parameter, parts, signed=key == "exp_avg")
            self._adamw.state[parameter][key] = held

    def _moment(self, parameter: Tensor, parts: dict[str, Tensor], *, signed: bool) -> Tensor:
        """One moment as this optimiser keeps it, in 8 bits or whole, from a moment that was kept either way."""
        if self._options.eight_bit_moments:
            if "" not in parts:
                moment = _torchao("torchao.optim.subclass_8bit").OptimState8bit
                return moment(*(parts[part] for part in PARTS), signed, parameter.dtype)
            adamw: Any = self._adamw
            return adamw._new_buffer(parameter.detach(), signed).copy_(parts[""])  # torchao leaves small ones whole
        if "" in parts:
            return parts[""]
        codes, scale, qmap = (parts[part] for part in PARTS)
        blocks = qmap[codes.int()].view(len(scale), -1) * scale[:, None]  # arXiv 2110.02861
        return blocks.view(codes.shape).to(parameter.dtype)


def _torchao(module: str) -> Any:
    """A module of torchao, imported where a recipe asks for it. It warns then of kernels that are not for this machine.

    Raises:
        LampoError: it cannot be imported.
    """
    logging.disable(logging.WARNING)
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise LampoError(f"optimizer.eight_bit_moments needs the package torchao: {error}. {INSTALL}") from None
    finally:
        logging.disable(logging.NOTSET)


def _parts(moment: str, held: Any) -> dict[str, Tensor]:
    """A moment's tensors by their keys: itself, or what torchao keeps of one in 8 bits."""
    if hasattr(held, "codes"):
        return {f"{moment}/{part}": getattr(held, part) for part in PARTS}
    return {moment: held}


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
