"""What a GPU can do, and what share of it each engine gets: measured where a measurement is named, else assumed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..messages import did_you_mean
from ..types import LampoError

Engine = Literal["native", "trl", "verl"]
ENGINES: tuple[Engine, ...] = ("native", "trl", "verl")


@dataclass(frozen=True, slots=True)
class Card:
    """One GPU, by its maker's numbers times what an H200 reached of them (benchmarks/RESULTS.md).

    Attributes:
        memory: bytes.
        bandwidth: bytes a second of a large copy, read and written; 0.84 of the maker's.
        rate: bfloat16 operations a second of a large product; 0.78 of the maker's.
        link: bytes a second to the other GPUs of its machine, assumed.
    """

    memory: float
    bandwidth: float
    rate: float
    link: float


_COPY, _PRODUCT = 0.84, 0.78

CARDS: dict[str, Card] = {
    "a100": Card(79 * 2**30, _COPY * 2.04e12, _PRODUCT * 312e12, 200e9),
    "h100": Card(79 * 2**30, _COPY * 3.35e12, _PRODUCT * 989e12, 300e9),
    "h200": Card(139 * 2**30, _COPY * 4.8e12, _PRODUCT * 989e12, 300e9),
    "b200": Card(178 * 2**30, _COPY * 8.0e12, _PRODUCT * 2250e12, 600e9),
    "l40s": Card(44 * 2**30, _COPY * 0.864e12, _PRODUCT * 362e12, 25e9),
    # two shared cores: operations a second that updates of two models reached (docs/plan.md)
    "cpu": Card(24 * 2**30, 20e9, 0.1e12, 1e9),
}
GPUS_A_NODE, NETWORK = 8, 40e9
"""GPUs in a machine, and bytes a second of each GPU to other machines: assumed."""
PROCESSORS_A_GPU = 8
"""Processor cores beside a GPU, for verifiers: assumed."""
MOST_GPUS = 512


def card_named(name: str) -> Card:
    """The card of this name.

    Raises:
        LampoError: nothing is known of it.
    """
    if name.lower() not in CARDS:
        raise LampoError(f"Nothing is known of the GPU {name!r}.{did_you_mean(name, CARDS)} Known: {', '.join(CARDS)}.")
    return CARDS[name.lower()]


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast an engine is on a card. Three of them make a range: all that is fast at once, likely, all that is slow at once.

    Attributes:
        decode_launch: seconds a layer of a decode step that no kernel fills.
        recording: seconds a layer to record a decode step anew, at the start and whenever half of the rows have ended.
        bandwidth: share of the card's bandwidth that reading weights, keys and values reaches.
        products: share of the card's rate that an update's products reach.
        update_launch: seconds a layer of a micro-batch that no kernel fills.
        exposed: share of the traffic between GPUs that nothing hides.
        fixed: seconds of a step in which the engine hands weights and batches around.
        host_link: bytes a second at which weights go to the sampler.
        length: mean response, as a share of the longest.
    """

    decode_launch: float
    recording: float
    bandwidth: float
    products: float
    update_launch: float
    exposed: float
    fixed: float
    host_link: float
    length: float


@dataclass(frozen=True, slots=True)
class Range:
    """The fast, likely and slow end of what is estimated."""

    fast: float
    likely: float
    slow: float


_NATIVE = (  # fitted to an H200 by hand (docs/log.md, 2026-11-27), recording assumed; the ends hold the checks of docs/plan.md
    Rates(0, 5e-4, 1.0, 0.60, 3e-3, 0, 0.0, 1, 0.35),
    Rates(2e-5, 15e-4, 1.0, 0.50, 65e-4, 0, 0.0, 1, 0.50),
    Rates(6e-5, 5e-3, 0.8, 0.40, 12e-3, 0, 0.1, 1, 0.65),
)
_VLLM = (  # assumed, and checked against one published table (docs/plan.md)
    Rates(2e-5, 0, 0.80, 0.60, 2e-4, 0.0, 1.0, 25e9, 0.35),
    Rates(6e-5, 0, 0.60, 0.45, 4e-4, 0.5, 3.0, 10e9, 0.50),
    Rates(1.5e-4, 0, 0.40, 0.25, 8e-4, 1.0, 10.0, 2e9, 0.65),
)
_CPU = (
    Rates(6e-4, 0, 1.0, 2.0, 8e-3, 0, 0.0, 1, 0.35),
    Rates(1.2e-3, 0, 1.0, 1.0, 16e-3, 0, 0.0, 1, 0.50),
    Rates(3e-3, 0, 0.7, 0.4, 40e-3, 0, 0.1, 1, 0.65),
)


def rates(engine: Engine, gpu: str) -> tuple[Rates, Rates, Rates]:
    """Fast, likely and slow."""
    if gpu.lower() == "cpu":
        return _CPU
    return _NATIVE if engine == "native" else _VLLM
