"""The terms of a step and of a run: rollouts, verifiers, update, weights on their way, evaluation, memory. In seconds and bytes.

What is measured, what is arithmetic and what is assumed stands in docs/plan.md. The constants are in `cards`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..config.schema import TrainConfig
from .cards import CARDS, GPUS_A_NODE, NETWORK, PROCESSORS_A_GPU, Card, Engine, Rates
from .lengths import in_order_of_asking
from .shape import Shape

TOKENS_ON_GPU, TOKENS_ON_CPU = 32_768, 1024
"""Of a micro-batch where a recipe leaves it to the machine ..."""
SHARE_OF_MEMORY = 0.25
"""... and this share of what weights, gradients and moments leave holds the activations (learner.budget)."""
LITTLE_PADDING, SHARE_OF_PADDING = 256, 0.05
"""What a micro-batch may be padded (learner.batch)."""
FEWEST_DROPPED = 16
"""Columns of keys and values that no row needs, and that are kept on a CPU: so many, and an eighth of those that are needed
(rollout.decoder)."""
SHARE_FOR_ROWS = 0.7
"""Of what weights, gradients and moments leave, for the native sampler's keys and values (model.memory)."""
ROWS_AT_FULL_LENGTH = 4
"""On a GPU so many times the rows begin that this holds at their longest (rollout.slabs)."""
PLACES_A_TOKEN = 4 / 3
"""On a GPU, as a row grows: its places double, and it has filled three quarters of them on average (rollout.slabs)."""
WORD_BYTES, WORD_BYTES_ON_CPU = 20, 64
"""Moved for each word and row of a decode step. On a GPU: logits in bfloat16 once written and read, in float32 once written and
thrice read (model.decode_kernels.draw)."""
EIGHT_BIT = 1 + 4 / 256
"""Bytes of a moment in 8 bits: its code, and its share of a scale for 256."""
CODE_MS, VERDICT_MS = 200.0, 2.0
"""Processor time of a verdict. `code` runs several programs, each 17 ms and more (docs/log.md). The others take 2 ms for 25,000
characters."""
ROUGE_MS = 4.0
"""Of ROUGE-L for 8,192 tokens: the square of what 4,000 take in docs/log.md."""
SAMPLER_SHARE = {"trl": 0.3, "verl": 0.6}
"""Of a GPU's memory that vLLM takes: TRL's default (vllm_gpu_memory_utilization), and that of recipes/verl."""
VLLM_OWN, MOST_SEQUENCES = 2e9, 256
"""Bytes that vLLM needs beside weights and cache, as in recipes/verl, and its bound on rows at once (max_num_seqs)."""

HELDOUT = {"gsm8k": 1319, "math500": 500, "aime24": 30, "aime25": 30, "gpqa_diamond": 198}
"""Problems of the benchmarks, to know how many there are without loading them."""
PROCESS = 444 * 2**20
"""Bytes of Python, torch and transformers, which count where the processor computes (docs/log.md)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """GPUs of one kind, an engine on them, and how fast it is taken to be.

    Attributes:
        vllm: how fast vLLM is, where it draws the rollouts of the native engine.
    """

    card: Card
    gpus: int
    engine: Engine
    rates: Rates
    vllm: Rates | None = None

    @property
    def sampler(self) -> Machine:
        """The machine as it is in sampling."""
        return self if self.vllm is None else replace(self, rates=self.vllm)

    @property
    def by_vllm(self) -> bool:
        """Whether vLLM draws the rollouts."""
        return self.engine != "native" or self.vllm is not None

    @property
    def in_columns(self) -> bool:
        """Whether all rows end in one column, as wide as the longest: the native sampler on a CPU."""
        return self.card == CARDS["cpu"] and not self.by_vllm


@dataclass(frozen=True, slots=True)
class Work:
    """What one step asks for.

    Attributes:
        shape: the model.
        config: the recipe.
        prompt: tokens of a prompt, on average.
        longest_prompt: tokens of the longest.
        on_cpu: a processor computes.
        memory: bytes of the GPU, for a budget that is left to the machine.
    """

    shape: Shape
    config: TrainConfig
    prompt: int
    longest_prompt: int
    on_cpu: bool = False
    memory: float = math.inf

    @property
    def packs(self) -> bool:
        """Whether the native engine lays rows end to end: with transformers' sdpa, on the CPU and in bfloat16 on a GPU (model.policy)."""
        model = self.config.model
        return model.attention in ("auto", "sdpa") and (self.on_cpu or model.dtype != "float32")

    @property
    def weight_bytes(self) -> int:
        """Of one weight in training."""
        return 2 if self.config.model.dtype == "bfloat16" else 4

    @property
    def trained(self) -> int:
        """Weights that have gradients and moments: all, or those of LoRA's adapters, on every linear layer."""
        lora = self.config.model.lora
        return self.shape.parameters if lora is None else self.shape.adapters(lora.rank)

    @property
    def micro_tokens(self) -> int:
        """Budget of a micro-batch."""
        told = self.config.training.tokens_per_microbatch
        if told != "auto":
            return told
        most = TOKENS_ON_CPU if self.on_cpu else TOKENS_ON_GPU
        taken = self.weight_bytes * (self.shape.parameters + 3 * self.trained)
        room = SHARE_OF_MEMORY * max(0.0, self.memory - taken)
        return max(256, int(min(most, room / self.activation_bytes)))

    @property
    def activation_bytes(self) -> int:
        """What a token keeps for the backward pass."""
        shape = self.shape
        layer = 6 * shape.hidden + 3 * (shape.heads + 2 * shape.kv_heads) * shape.head_dim + 4 * shape.inner
        return 2 * (
            shape.layers * shape.hidden + layer if self.config.model.gradient_checkpointing else shape.layers * layer
        )

    @property
    def row_tokens(self) -> int:
        """Of the longest row."""
        return self.longest_prompt + self.config.sampling.max_new_tokens


def decode_step(work: Work, machine: Machine, rows: float, positions: float) -> float:
    """Seconds of one decode step.

        launches + (weights + cache + vocabulary) / bandwidth + 2 x weights x rows / rate

    The native sampler on a GPU is taken to have the steps of Llama's kind in bfloat16 (model.flash_step), whatever the model.

    Args:
        work: the model.
        machine: where.
        rows: responses that are being drawn.
        positions: cached tokens of all of them.
    """
    shape, rates, card = work.shape, machine.rates, machine.card
    size = work.weight_bytes if machine.in_columns else 2
    drawing = rows * shape.vocabulary * (WORD_BYTES_ON_CPU if machine.in_columns else WORD_BYTES)
    moved = shape.parameters * size + positions * shape.cached() + drawing
    computing = moved / (card.bandwidth * rates.bandwidth) + 2 * shape.multiplied * rows / card.rate
    return shape.layers * rates.decode_launch + computing


def rollout_seconds(work: Work, machine: Machine, lengths: Sequence[int], slots: int) -> float:
    """Seconds until the last of these responses has ended, on one GPU. The place of each that ends goes to the next."""
    prefill = 2 * work.shape.multiplied * work.prompt * len(lengths) / work.config.sampling.group_size
    start = prefill / (machine.card.rate * min(1.0, machine.rates.products))
    return start + _drawing_seconds(work, machine, lengths, min(slots, len(lengths)))


def _drawing_seconds(work: Work, machine: Machine, lengths: Sequence[int], rows: int) -> float:
    """One event for each response that ends, on a clock of decode steps.

    Keys and values are those of the tokens that are there. Natively on a CPU every row is as wide as the longest. When none waits,
    native rows leave when half of them have ended.
    """
    recording = 0.0 if machine.by_vllm else work.shape.layers * machine.rates.recording
    seconds, now, oldest = recording, 0, 0
    heap = [(length, number) for number, length in enumerate(lengths[:rows])]
    heapq.heapify(heap)
    began, sum_began, ended = [0] * rows, 0, set[int]()
    while heap:
        end, number = heap[0]
        if steps := end - now:
            if machine.by_vllm:
                rows = len(heap)
            elif len(heap) <= rows // 2:
                rows, seconds = len(heap), seconds + recording
            width = work.prompt + now + steps / 2
            positions = rows * (width - began[oldest]) if machine.in_columns else len(heap) * width - sum_began
            seconds += steps * decode_step(work, machine, rows, positions)
        now = end
        heapq.heappop(heap)
        ended.add(number)
        sum_began -= began[number]
        if len(began) < len(lengths):
            heapq.heappush(heap, (now + lengths[len(began)], len(began)))
            began.append(now)
            sum_began += now
        while oldest in ended:
            oldest += 1
    return seconds


def share_of(lengths: Sequence[int], gpus: int) -> list[int]:
    """The responses of the busiest GPU: every `gpus`-th by length, the longest among them, as they come."""
    return in_order_of_asking(sorted(lengths, reverse=True)[::gpus])


def slots_of(work: Work, machine: Machine, lengths: Sequence[int]) -> int:
    """Of these responses, those that are drawn at once on one GPU.

    A row holds what its tokens need. In the middle of its life of L tokens it has drawn L / 2, and a long one lives long: the sum of
    L^2 / 2 over that of L. On a CPU each has room for the longest.
    """
    rows = len(lengths)
    if machine.in_columns:
        return _rows_that_begin(work, machine, rows)
    drawn = sum(length * length for length in lengths) / (2 * sum(lengths))
    held = (work.prompt + drawn) * work.shape.cached()
    if machine.by_vllm:
        most = MOST_SEQUENCES if machine.vllm is None else work.config.sampling.rows_at_once
        fitting = (vllm_bytes(work, machine) - 2 * work.shape.parameters - VLLM_OWN) / held
    else:
        most = _rows_that_begin(work, machine, rows)
        fitting = _room_for_rows(work, machine) / (PLACES_A_TOKEN * held)
    return max(1, min(rows, most, int(fitting)))


def _room_for_rows(work: Work, machine: Machine) -> float:
    """Bytes for the keys and values of the native sampler."""
    taken = work.weight_bytes * (work.shape.parameters + 3 * work.trained)
    return SHARE_FOR_ROWS * max(0.0, machine.card.memory - taken)


def _rows_that_begin(work: Work, machine: Machine, rows: int) -> int:
    """Of so many, those that the native sampler has a place for."""
    if machine.in_columns:
        each, nowhere = most_columns(work.row_tokens), 0
    else:
        each, nowhere = max(2 * (work.longest_prompt + 1), work.row_tokens // ROWS_AT_FULL_LENGTH), 1
    fitting = int(_room_for_rows(work, machine) / (each * work.shape.cached())) - nowhere
    return max(1, min(rows, work.config.sampling.rows_at_once, fitting))


def cache_bytes(work: Work, machine: Machine, rows: int) -> float:
    """What the native sampler takes for the keys and values of so many rows. On a GPU all that there is, if they may fill it."""
    at_once, each = _rows_that_begin(work, machine, rows), work.shape.cached()
    if machine.in_columns:
        return float(at_once * most_columns(work.row_tokens) * each)
    longest = work.row_tokens * each
    return max(2.0 * longest, min(_room_for_rows(work, machine), float(at_once * longest)))


def vllm_bytes(work: Work, machine: Machine) -> float:
    """What vLLM takes of a GPU for weights and cache."""
    if machine.vllm is None:
        return SAMPLER_SHARE[machine.engine] * machine.card.memory
    options = work.config.sampling.vllm
    if (cache := options.cache_on("cpu" if machine.card == CARDS["cpu"] else "cuda")) is not None:
        return 2 * work.shape.parameters + VLLM_OWN + cache * 2**30
    return options.memory_share * machine.card.memory


def passes(work: Work, engine: Engine) -> tuple[float, float]:
    """Forward passes that an update is worth: 1 forward, 2 backward, 1 more if recomputed, and those without a gradient.

    Frozen weights need no gradient of their own, so that under LoRA the backward pass is worth 1.
    """
    frozen = (work.config.loss.kl_coefficient > 0) + (
        engine != "native"
    )  # the reference; the trainer's own old log-probs
    backward = 2.0 if work.config.model.lora is None else 1.0
    return 1.0 + backward + work.config.model.gradient_checkpointing, float(frozen)


def microbatches(work: Work, engine: Engine, lengths: Sequence[int]) -> tuple[float, float, float]:
    """Micro-batches of one update on one GPU, their tokens with padding, and the sum of tokens x row length.

    Natively rows lie end to end, and a group's prompt is computed once. Where they do not, rows of like length go together, with at
    most a twentieth of padding. TRL pads rows as they come. verl packs them without padding.
    """
    rows = sorted((work.prompt + length for length in lengths), reverse=True)
    if engine == "verl":
        budget = max(work.micro_tokens, work.row_tokens)
        return max(1, math.ceil(sum(rows) / budget)), sum(rows), sum(row * row for row in rows)
    if engine == "trl":
        together = max(1, work.micro_tokens // work.row_tokens)
        longest = _mean_of_longest(rows[::-1], together)
        return math.ceil(len(rows) / together), len(rows) * longest, len(rows) * longest**2
    # of padded rows a group's prompt is not shared under gradient checkpointing
    shares = work.packs or not work.config.model.gradient_checkpointing
    saved = work.prompt * (1 - 1 / work.config.sampling.group_size) if shares else 0.0
    count, tokens, squares, begin = 0, 0.0, 0.0, 0
    while begin < len(rows):
        longest, own, computed, end = rows[begin] - saved, 0.0, 0.0, begin
        while end < len(rows):
            more = own + rows[end] - saved
            wider = more if work.packs else (end + 1 - begin) * longest
            full = wider > work.micro_tokens or wider - more > max(LITTLE_PADDING, SHARE_OF_PADDING * wider)
            if full and end > begin:
                break
            own, computed, end = more, wider, end + 1
        count, tokens = count + 1, tokens + computed
        squares += sum((row - saved) * row for row in rows[begin:end]) if work.packs else computed * rows[begin]
        begin = end
    return count, tokens, squares


def _mean_of_longest(ascending: Sequence[int], together: int) -> float:
    """E[max of `together` rows]."""
    count = len(ascending)
    return sum(
        row * (((number + 1) / count) ** together - (number / count) ** together)
        for number, row in enumerate(ascending)
    )


def update_seconds(work: Work, machine: Machine, lengths: Sequence[int]) -> float:
    """Seconds of the updates of one step on the busiest GPU.

        passes x (2 x weights x tokens + attention) / rate + launches + AdamW + what GPUs tell each other

    Attention is 2 x layers x width x tokens x length operations a pass.
    """
    learned, frozen = passes(work, machine.engine)
    each, count = _pass_seconds(work, machine, lengths)
    updates = work.config.training.updates_per_batch
    seconds = updates * (learned * each + _around(work, machine, count)) + frozen * each
    return seconds + machine.rates.exposed * traffic_seconds(work, machine, count * updates, updates)


def supervised_seconds(work: Work, machine: Machine, lengths: Sequence[int]) -> float:
    """Seconds of a step of the warm start, on one GPU: solutions are taken to be as long as responses."""
    each, count = _pass_seconds(work, machine, lengths)
    return passes(work, "native")[0] * each + _around(work, machine, count)


def _around(work: Work, machine: Machine, num_microbatches: float) -> float:
    """Launches and AdamW of one update."""
    adamw = 28 * work.trained / shards_of(machine) / machine.card.bandwidth
    return num_microbatches * work.shape.layers * machine.rates.update_launch + adamw


def _pass_seconds(work: Work, machine: Machine, lengths: Sequence[int]) -> tuple[float, float]:
    """Seconds of one forward pass over these responses, and its micro-batches."""
    shape = work.shape
    count, tokens, squares = microbatches(work, machine.engine, lengths)
    operations = 2 * shape.multiplied * tokens + 2 * shape.layers * shape.heads * shape.head_dim * squares
    return operations / (machine.card.rate * machine.rates.products), count


def shards_of(machine: Machine) -> int:
    """GPUs that share weights, gradients and moments: those of a node (fsdp_size=8 in recipes/verl)."""
    return 1 if machine.engine == "native" else min(machine.gpus, GPUS_A_NODE)


def traffic_seconds(work: Work, machine: Machine, num_microbatches: float, updates: int) -> float:
    """Weights gathered twice and gradients scattered once a micro-batch, in a node. Gradients averaged over nodes once an update."""
    shards, parameters = shards_of(machine), work.shape.parameters
    inside = num_microbatches * (4 * parameters + 4 * work.trained) * (shards - 1) / shards / machine.card.link
    nodes = math.ceil(machine.gpus / GPUS_A_NODE)
    return inside + updates * 2 * 4 * work.trained / shards * (nodes - 1) / nodes / NETWORK


def transfer_seconds(work: Work, machine: Machine) -> float:
    """Weights to the sampler in bfloat16, and what an engine does besides. The native sampler draws from the weights themselves."""
    moving = 0.0 if machine.engine == "native" else 2 * work.shape.parameters / machine.rates.host_link
    return machine.rates.fixed + moving


def verifier_seconds(work: Work, rows: int, gpus: int, hidden_s: float) -> float:
    """What of the verdicts the rollouts do not hide, the last one at least, and ROUGE-L, which each GPU's process computes for its rows."""
    processors = PROCESSORS_A_GPU * gpus
    name = work.config.verifier.name if work.config.verifier is not None else ""
    each = (CODE_MS if "code" in (name, work.config.task.name) else VERDICT_MS) / 1e3
    rouge = ROUGE_MS / 1e3 * (work.config.sampling.max_new_tokens / 8192) ** 2
    rewards = rouge * any(reward.name == "rouge_l" for reward in work.config.rewards)
    return max(each, rows * each / processors - hidden_s) + rows * rewards / gpus


def evaluated(config: TrainConfig, *, at_an_end: bool, heldout: int | None = None) -> int:
    """Responses of one evaluation: held-out problems, each benchmark, and the most likely responses.

    Args:
        config: the recipe.
        at_an_end: before the first or after the last step.
        heldout: how many held-out problems there are; what the task says if not given.
    """
    options = config.evaluation
    count = options.final_problems if at_an_end and options.final_problems is not None else options.problems
    samples = options.final_samples if at_an_end and options.final_samples is not None else options.samples
    told: int = getattr(config.task, "num_heldout", HELDOUT.get(config.task.name, count))
    there = told if heldout is None else heldout
    own = min(count, there - min(there, options.skip))
    return own * (samples + options.greedy) + samples * sum(
        min(count, HELDOUT.get(name, count)) for name in options.benchmarks
    )


def evaluations(config: TrainConfig, heldout: int | None = None) -> list[int]:
    """Responses of each evaluation of a run, in order."""
    steps, every = config.training.steps, config.evaluation.every
    between = len([step for step in range(1, steps) if step % every == 0])
    end = evaluated(config, at_an_end=True, heldout=heldout)
    return [end, *[evaluated(config, at_an_end=False, heldout=heldout)] * between, *([end] if steps else [])]


def memory_parts(work: Work, machine: Machine) -> dict[str, float]:
    """Bytes of one GPU, by part; `peak` puts together what lies there at once."""
    shape, config = work.shape, work.config
    shards, size = shards_of(machine), work.weight_bytes
    in_8_bits = machine.engine == "native" and config.optimizer.eight_bit_moments
    parts = {
        "weights": shape.parameters * size / shards,
        "gradients": work.trained * size / shards,
        "AdamW's moments": 2 * work.trained * (EIGHT_BIT if in_8_bits else size) / shards,
        "reference": reference_weights(work, machine) * size / shards,
        "the process itself": PROCESS * (machine.card == CARDS["cpu"]),
    }
    if machine.engine == "native":
        rows = config.sampling.problems_per_step * config.sampling.group_size
        tokens = min(work.micro_tokens, rows * work.row_tokens)
        logits = 2 * 4 * min(tokens * shape.vocabulary, max(2**25, 1024 * shape.vocabulary))
        # autocast keeps trained weights in bfloat16 beside them
        parts["weights in bfloat16"] = 2.0 * work.trained * (size == 4)
        if machine.vllm is not None:
            on_cpu = machine.card == CARDS["cpu"]
            parts["vLLM, which never sleeps" if on_cpu else "sampling: vLLM"] = vllm_bytes(work, machine)
        else:
            parts["sampling: keys and values"] = cache_bytes(work, machine, max(rows, *evaluations(config)))
            # a step on a GPU has its own, beside those that prompts ran with
            parts["sampling: weights of a step"] = 0.0 if machine.in_columns else 2.0 * shape.in_layers
    else:
        together = max(1, work.micro_tokens // work.row_tokens)
        tokens = together * work.row_tokens if machine.engine == "trl" else max(work.micro_tokens, work.row_tokens)
        logits = tokens * shape.vocabulary * (2 + 4 + 4)
        vllm = vllm_bytes(work, machine)
        parts["vLLM, which never sleeps" if machine.engine == "trl" else "sampling: vLLM"] = vllm
    return parts | {"update: activations": float(tokens * work.activation_bytes), "update: logits": float(logits)}


def most_columns(row_tokens: int) -> int:
    """Of the native storage of keys and values on a CPU."""
    return row_tokens + max(FEWEST_DROPPED, row_tokens // 8)


def reference_weights(work: Work, machine: Machine) -> float:
    """Weights of the reference on a GPU. Natively those that are trained, in main memory: they visit it while it holds no gradients."""
    if work.config.loss.kl_coefficient == 0:
        return 0.0
    if machine.engine == "native":
        return float(work.trained * (machine.card == CARDS["cpu"]))
    return float(work.shape.parameters)


def peak(parts: dict[str, float]) -> float:
    """Bytes at the peak: gradients, activations and logits lie there in an update, keys and values in sampling."""
    sampling = sum(value for part, value in parts.items() if part.startswith("sampling"))
    update = sum(value for part, value in parts.items() if part.startswith("update") or part == "gradients")
    return sum(parts.values()) - min(sampling, update)
