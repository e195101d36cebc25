"""Each term of a plan against a number worked by hand."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from lampo.config.load import load_config
from lampo.config.schema import ModelOptions, TrainConfig
from lampo.model.policy import load_policy
from lampo.plan.cards import CARDS, Card, Rates
from lampo.plan.cost import (
    Machine,
    Work,
    decode_step,
    evaluations,
    memory_parts,
    microbatches,
    passes,
    peak,
    rollout_seconds,
    share_of,
    slots_of,
    supervised_seconds,
    traffic_seconds,
    transfer_seconds,
    update_seconds,
    verifier_seconds,
)
from lampo.plan.lengths import assumed_lengths, kept_lengths, resampled
from lampo.plan.shape import KNOWN, Shape, shape_of
from lampo.store.rollouts import write_shard
from lampo.types import LampoError

RECIPES = Path(__file__).parents[3] / "recipes"
SHAPE = Shape(layers=2, hidden=10, inner=20, heads=4, kv_heads=2, head_dim=5, vocabulary=100, tied=True)
WEIGHTS = 2 * (2 * 10 * (4 + 2) * 5 + 3 * 10 * 20 + 2 * 10) + 100 * 10 + 10
CACHED = 2 * 2 * 2 * 5 * 2  # keys and values, layers, heads, width, bytes
CARD = Card(memory=1e9, bandwidth=1e6, rate=1e9, link=1e7)
RATES = Rates(
    decode_launch=1e-3,
    recording=0,
    bandwidth=0.5,
    products=0.25,
    update_launch=2e-3,
    exposed=1.0,
    fixed=0.5,
    host_link=1e5,
    length=0.5,
)


def work(*settings: str, prompt: int = 4) -> Work:
    small = ["sampling.group_size=2", "sampling.problems_per_step=2", "sampling.max_new_tokens=16", *settings]
    return Work(SHAPE, load_config(RECIPES / "quickstart.yaml", small), prompt, prompt)


def machine(engine: Any = "native", gpus: int = 1, **changes: Any) -> Machine:
    return Machine(CARD, gpus, engine, dataclasses.replace(RATES, **changes))


def test_weights_and_cache() -> None:
    assert (SHAPE.parameters, SHAPE.multiplied, SHAPE.cached()) == (WEIGHTS, WEIGHTS, CACHED)
    untied = dataclasses.replace(SHAPE, tied=False)
    assert (untied.parameters, untied.multiplied) == (WEIGHTS + 1000, WEIGHTS)


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("Qwen/Qwen3-0.6B", 0.596),
        ("Qwen/Qwen3-1.7B", 1.72),
        ("Qwen/Qwen3-4B", 4.02),
        ("microsoft/Phi-4-mini-instruct", 3.84),
    ],
)
def test_known_shapes_have_as_many_weights_as_their_models(name: str, billions: float) -> None:
    assert KNOWN[name].parameters / 1e9 == pytest.approx(billions, abs=0.005)


def test_a_decode_step() -> None:
    """Launches of 2 layers; the cache, weights in 2 bytes and 20 bytes a word, on a CPU 4 and 64; 2 operations a weight and row."""

    def expected(card: Card, weight: int, word: int) -> float:
        moved = WEIGHTS * weight + 30 * CACHED + 5 * 100 * word
        return 2 * 1e-3 + moved / (card.bandwidth * 0.5) + 2 * WEIGHTS * 5 / card.rate

    assert decode_step(work(), machine(), rows=5, positions=30) == pytest.approx(expected(CARD, 2, 20))
    on_cpu = Machine(CARDS["cpu"], 1, "native", RATES)
    assert decode_step(work(), on_cpu, rows=5, positions=30) == pytest.approx(expected(CARDS["cpu"], 4, 64))


def test_rows_leave_when_half_have_ended() -> None:
    """Lengths 1, 2, 3, 8: four rows to position 2, two to position 3, one to position 8, each with the tokens that it has."""
    steps = [(4, 4 * 4.5), (4, 3 * 5.5), (2, 2 * 6.5), *((1, 7.5 + t) for t in range(5))]
    prefill = 2 * WEIGHTS * 4 * 4 / 2 / (1e9 * 0.25)
    expected = prefill + sum(decode_step(work(), machine(), *step) for step in steps)
    assert rollout_seconds(work(), machine(), [3, 8, 1, 2], slots=4) == pytest.approx(expected)
    again = machine(recording=1e-3)  # at first, and when two and three rows have left
    assert rollout_seconds(work(), again, [3, 8, 1, 2], slots=4) == pytest.approx(expected + 3 * 2 * 1e-3)


def test_on_a_cpu_a_place_is_filled_at_once() -> None:
    """Two places for 2, 6, 4 tokens: two steps beside a row of 4 tokens, then four from its second on, as wide as the older row."""
    here = Machine(dataclasses.replace(CARDS["cpu"]), 1, "native", RATES)
    prefill = 2 * WEIGHTS * 4 * 3 / 2 / (here.card.rate * 0.25)
    expected = prefill + sum(decode_step(work(), here, 2, 2 * (4 + t + 0.5)) for t in range(6)) + 2 * RATES.recording
    assert rollout_seconds(work(), here, [2, 6, 4], slots=2) == pytest.approx(expected)


@pytest.mark.parametrize("engine", ["native", "verl"])
def test_on_a_gpu_a_place_is_filled_at_once_too(engine: str) -> None:
    """Two places for 2, 6, 4 tokens: both are full for 6 steps, and each row has the tokens that it has drawn."""
    prefill = 2 * WEIGHTS * 4 * 3 / 2 / (1e9 * 0.25)
    drawn = [(0, 0), (1, 1), (2, 0), (3, 1), (4, 2), (5, 3)]
    steps = [decode_step(work(), machine(engine), 2, 2 * 4.5 + a + b) for a, b in drawn]
    assert rollout_seconds(work(), machine(engine), [2, 6, 4], slots=2) == pytest.approx(prefill + sum(steps))


def test_cached_positions_grow_as_rows_do() -> None:
    """One row of 4 tokens behind a prompt of 4: 4, 5, 6, 7 positions, and half a token more on average."""
    steps = [decode_step(work(), machine("verl"), 1, 4 + t + 0.5) for t in range(4)]
    prefill = 2 * WEIGHTS * 4 / 2 / (1e9 * 0.25)
    assert rollout_seconds(work(), machine("verl"), [4], slots=1) == pytest.approx(prefill + sum(steps))


PADDED = "model.dtype=float32"


def test_micro_batches() -> None:
    tight = work(PADDED, "training.tokens_per_microbatch=24", "model.gradient_checkpointing=true")
    # rows of 12, 8, 6, 6 with their prompts: 12 + 12, then 6 + 6
    assert microbatches(tight, "native", [8, 4, 2, 2]) == (2, 12 * 2 + 6 * 2, 2 * 12**2 + 2 * 6**2)
    # 64 rows of 8 go beside those of 12: four tokens of padding each make 256
    many = work(PADDED, "training.tokens_per_microbatch=100000", "model.gradient_checkpointing=true")
    assert microbatches(many, "native", [8] * 100 + [4] * 100)[:2] == (2, 12 * 164 + 8 * 36)
    # end to end two of a group's rows share a prompt of 4: 10, 6, 4, 4, each beside its own length
    end_to_end = (1, 10 + 6 + 4 + 4, 10 * 12 + 6 * 8 + 4 * 6 + 4 * 6)
    assert microbatches(dataclasses.replace(tight, on_cpu=True), "native", [8, 4, 2, 2]) == end_to_end
    for dtype in ("auto", "mixed", "bfloat16"):
        packed = work(f"model.dtype={dtype}", "training.tokens_per_microbatch=24", "model.gradient_checkpointing=true")
        assert microbatches(packed, "native", [8, 4, 2, 2]) == end_to_end
    # rows go whole, so that of 24 tokens 16 and 8 fill two of 20
    tighter = work("training.tokens_per_microbatch=20", "model.gradient_checkpointing=true")
    assert microbatches(tighter, "native", [8, 4, 2, 2])[:2] == (2, 24)
    eager = work("model.attention=eager", "training.tokens_per_microbatch=24", "model.gradient_checkpointing=true")
    assert microbatches(eager, "native", [8, 4, 2, 2]) == microbatches(tight, "native", [8, 4, 2, 2])
    # without checkpointing padded rows share it too
    assert microbatches(work(PADDED, "training.tokens_per_microbatch=24"), "native", [8, 4, 2, 2])[:2] == (
        2,
        10 * 2 + 4 * 2,
    )
    assert microbatches(tight, "verl", [8, 4, 2, 2]) == (2, 32, 12**2 + 8**2 + 6**2 + 6**2)
    # one row of 20 fits 24 tokens, so TRL takes each alone; two of them fit 40, and the longer one counts
    assert microbatches(tight, "trl", [8, 4, 2, 2])[:2] == (4, 32)
    pairs = work("training.tokens_per_microbatch=40", "model.gradient_checkpointing=true")
    longer = sum(max(a, b) for a in (12, 8, 6, 6) for b in (12, 8, 6, 6)) / 16
    assert microbatches(pairs, "trl", [8, 4, 2, 2])[1] == pytest.approx(4 * longer)


def test_a_budget_that_is_left_to_the_machine() -> None:
    """A quarter of what 16 bytes a weight leave, for activations of 2 layers."""
    auto = work("training.tokens_per_microbatch=auto")
    kept = 2 * 2 * (6 * 10 + 3 * (4 + 2 * 2) * 5 + 4 * 20)
    assert auto.micro_tokens == 32_768
    assert dataclasses.replace(auto, on_cpu=True).micro_tokens == 1024
    tight = dataclasses.replace(auto, memory=16 * WEIGHTS + 4 * 500 * kept)
    assert tight.micro_tokens == 500


def test_an_update() -> None:
    """3 passes and 1 recomputed, of 48 tokens; AdamW touches 28 bytes a weight."""
    checkpointed = work(PADDED, "training.tokens_per_microbatch=1000", "model.gradient_checkpointing=true")
    one = 2 * WEIGHTS * 4 * 12 + 2 * 2 * 4 * 5 * 4 * 12**2
    expected = 4 * one / (1e9 * 0.25) + 2 * 2e-3 + 28 * WEIGHTS / 1e6
    assert update_seconds(checkpointed, machine(), [8, 4, 2, 2]) == pytest.approx(expected)
    assert supervised_seconds(checkpointed, machine(), [8, 4, 2, 2]) == pytest.approx(expected)
    with_reference = work(
        *(PADDED, "training.tokens_per_microbatch=1000", "model.gradient_checkpointing=true"),
        "loss.kl_coefficient=0.1",
    )
    more = update_seconds(with_reference, machine(), [8, 4, 2, 2]) - expected
    assert more == pytest.approx(one / (1e9 * 0.25))


def test_traffic() -> None:
    """8 bytes a weight and micro-batch in a node, of which 7/8 come from others; 8 bytes an update between two nodes."""
    sixteen = machine("verl", gpus=16)
    inside, outside = 3 * 8 * WEIGHTS * (7 / 8) / 1e7, 8 * WEIGHTS / 8 * (1 / 2) / 40e9
    assert traffic_seconds(work(), sixteen, num_microbatches=3, updates=1) == pytest.approx(inside + outside)
    assert traffic_seconds(work(), machine(), num_microbatches=3, updates=1) == 0


def test_weights_to_the_sampler() -> None:
    assert transfer_seconds(work(), machine("verl")) == pytest.approx(0.5 + 2 * WEIGHTS / 1e5)
    assert transfer_seconds(work(), machine(fixed=0)) == 0


def test_verdicts_hide_behind_rollouts() -> None:
    numeric = work("rewards=[{name: verifier}]")
    assert verifier_seconds(numeric, rows=800, gpus=1, hidden_s=1) == pytest.approx(2e-3)  # the last one
    assert verifier_seconds(numeric, rows=8000, gpus=1, hidden_s=1) == pytest.approx(8000 * 2e-3 / 8 - 1)
    code = work("task.name=code")
    assert verifier_seconds(code, rows=800, gpus=1, hidden_s=1) == pytest.approx(800 * 0.2 / 8 - 1)
    rouge = work("rewards=[{name: verifier}, {name: rouge_l}]", "sampling.max_new_tokens=8192")
    assert verifier_seconds(rouge, rows=800, gpus=2, hidden_s=10) == pytest.approx(2e-3 + 400 * 4e-3)


def test_lengths_have_the_mean_and_the_cut_that_they_stand_for() -> None:
    lengths = assumed_lengths(4000, 500, 1000)
    assert sum(lengths) / 4000 == pytest.approx(500, rel=0.01)
    assert lengths == sorted(lengths)
    assert lengths[-1] == 1000
    assert resampled([1, 2, 3, 4], 2) == [2, 4]


def test_real_lengths_come_from_a_run(tmp_path: Path) -> None:
    (tmp_path / "rollouts").mkdir()
    for step in range(1, 8):
        rollouts = [{"length": 10 * step, "status": "right"}]
        write_shard(tmp_path, step, [{"problem": {"id": "p", "prompt": "p"}, "rollouts": rollouts}])
    assert kept_lengths(tmp_path) == [30, 40, 50, 60, 70]  # of the last five steps
    with pytest.raises(LampoError, match="has no rollouts"):
        kept_lengths(tmp_path / "nothing")


def test_the_busiest_gpu_has_the_longest() -> None:
    assert sorted(share_of([1, 2, 3, 4, 5], 2)) == [1, 3, 5]
    assert share_of([1, 2, 3], 512) == [3]


@pytest.mark.parametrize(
    ("settings", "counts"),
    [
        (["evaluation.samples=4"], [4 * 1258, 4 * 444, 4 * 1258]),
        ([], [500 + 30 + 30 + 500 + 198, 128 + 30 + 30 + 128 + 128, 1258]),
        (["evaluation.greedy=true"], [1258 + 500, 444 + 128, 1258 + 500]),
        (["evaluation.skip=450"], [1258 - 450, 444 - 78, 1258 - 450]),
        (["training.steps=0"], [1258]),
    ],
)
def test_responses_of_each_evaluation(settings: list[str], counts: list[int]) -> None:
    assert evaluations(load_config(RECIPES / "qwen3-1.7b-mot.yaml", settings)) == counts


def plan_of(recipe: str, *settings: str) -> TrainConfig:
    return load_config(RECIPES / f"{recipe}.yaml", list(settings))


def test_memory_of_the_native_engine() -> None:
    parts = memory_parts(work("model.dtype=mixed", "evaluation.problems=1", "evaluation.final_problems=1"), machine())
    assert parts["weights"] == parts["gradients"] == 4 * WEIGHTS
    assert parts["AdamW's moments"] == 8 * WEIGHTS
    assert parts["weights in bfloat16"] == 2 * WEIGHTS
    assert parts["sampling: keys and values"] == 4 * 20 * CACHED
    assert parts["sampling: weights of a step"] == 2 * (WEIGHTS - 100 * 10 - 10)
    layer = 6 * 10 + 3 * (4 + 2 * 2) * 5 + 4 * 20
    assert parts["update: activations"] == 2 * (4 * 20) * 2 * layer
    update = parts["gradients"] + parts["update: activations"] + parts["update: logits"]
    sampling = parts["sampling: keys and values"] + parts["sampling: weights of a step"]
    assert peak(parts) == pytest.approx(14 * WEIGHTS + max(update, sampling))


def test_moments_in_8_bits_are_a_quarter_and_a_scale_for_256_of_the_native_engine_alone() -> None:
    eight = work("optimizer.eight_bit_moments=true")
    assert memory_parts(eight, machine())["AdamW's moments"] == 2 * WEIGHTS * (1 + 4 / 256)
    verl = Machine(CARDS["h100"], 8, "verl", RATES)
    assert memory_parts(eight, verl) == memory_parts(work(), verl)


@pytest.mark.parametrize(("adapters", "trained"), [([], WEIGHTS), (["model.lora.rank=3"], 2 * 3 * (60 + 40 + 90))])
def test_a_reference_is_the_weights_that_are_trained_and_lies_in_main_memory(adapters: list[str], trained: int) -> None:
    both = work(*adapters, "loss.kl_coefficient=0.1")
    assert memory_parts(both, machine())["reference"] == 0
    assert memory_parts(both, Machine(CARDS["cpu"], 1, "native", RATES))["reference"] == 4 * trained
    assert memory_parts(both, machine("trl"))["reference"] == 4 * WEIGHTS


def test_memory_in_verl_is_that_of_its_launch_recipe() -> None:
    """recipes/verl/qwen3-1.7b-fsdp2.sh, in GB: 3.4, 0.9, 14.0, 1.1."""
    config = plan_of("qwen3-1.7b-mot", "training.tokens_per_microbatch=9216")
    eight = Machine(CARDS["h100"], 8, "verl", RATES)
    parts = memory_parts(Work(KNOWN["Qwen/Qwen3-1.7B"], config, 200, 1024), eight)
    lasting = parts["weights"] + parts["gradients"] + parts["AdamW's moments"]
    assert lasting / 1e9 == pytest.approx(3.4, abs=0.05)
    assert parts["reference"] / 1e9 == pytest.approx(0.9, abs=0.05)
    assert parts["update: logits"] / 1e9 == pytest.approx(14.0, abs=0.05)
    assert 1.1 < parts["update: activations"] / 1e9 < 2.0  # the inputs of the layers, and the activations of one


def test_rows_at_once() -> None:
    """On a GPU a row of 4,096 tokens has 2,048 in the middle of its life; natively in places that double. On a CPU all have the longest."""
    config, lengths = plan_of("qwen3-1.7b-mot"), [4096] * 256
    shape, card = KNOWN["Qwen/Qwen3-1.7B"], CARDS["h100"]
    asked, native = Work(shape, config, 200, 500), Machine(card, 1, "native", RATES)
    tokens = 0.7 * (card.memory - 4 * 4 * shape.parameters) / 114_688
    assert slots_of(asked, native, lengths) == int(tokens / (4 / 3 * (200 + 2048))) == 116
    assert slots_of(asked, native, [200] * 256) == int(tokens / (8692 // 4)) - 1 == 159  # no more begin
    few = dataclasses.replace(asked, config=plan_of("qwen3-1.7b-mot", "sampling.rows_at_once=20"))
    assert slots_of(few, native, lengths) == 20
    room = 0.6 * card.memory - 2 * shape.parameters - 2e9
    assert slots_of(asked, Machine(card, 1, "verl", RATES), lengths) == int(room / (114_688 * (200 + 2048)))
    on_cpu = Machine(CARDS["cpu"], 1, "native", RATES)
    small = dataclasses.replace(asked, shape=KNOWN["SmolLM2-135M-Instruct"])
    room = 0.7 * (CARDS["cpu"].memory - 4 * 4 * small.shape.parameters)
    assert slots_of(small, on_cpu, lengths) == int(room / (small.shape.cached() * (8692 * 9 // 8)))


def test_rows_that_may_fill_the_memory_take_all_that_there_is() -> None:
    asked = Work(KNOWN["Qwen/Qwen3-1.7B"], plan_of("qwen3-1.7b-mot"), 200, 500)
    parts = memory_parts(asked, Machine(CARDS["h100"], 1, "native", RATES))
    assert parts["sampling: keys and values"] == 0.7 * (CARDS["h100"].memory - 4 * 4 * asked.shape.parameters)


def test_a_broken_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LampoError, match=r"Cannot read .*config\.json: Expecting property name"):
        shape_of(ModelOptions(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ModelOptions(path="nobody/nothing-like-it"), "shape of the model nobody/nothing-like-it is not known"),
        (ModelOptions(path="no hub name"), "shape of the model no hub name is not known"),
        (
            ModelOptions(config={"model_type": "x", "hidden_size": 8}, characters="01"),
            "does not say num_attention_heads",
        ),
        (ModelOptions(config={"model_type": "x", "num_experts": 8}, characters="01"), "knows dense ones only"),
    ],
)
def test_a_shape_that_cannot_be_told(options: ModelOptions, message: str) -> None:
    with pytest.raises(LampoError, match=message):
        shape_of(options)


def test_low_rank_adapters_alone_have_gradients_and_moments() -> None:
    full, low = work(), work("model.lora.rank=3")
    adapters = 2 * 3 * (2 * (10 + 20) + 2 * (10 + 10) + 3 * (10 + 20))
    assert (full.trained, low.trained) == (WEIGHTS, adapters)
    parts, whole = memory_parts(low, machine()), memory_parts(full, machine())
    assert parts["gradients"] == 4 * adapters
    assert parts["AdamW's moments"] == 8 * adapters
    assert parts["weights"] == whole["weights"] == 4 * WEIGHTS
    assert passes(low, "native")[0] == passes(full, "native")[0] - 1  # frozen weights need no gradient of their own
    assert traffic_seconds(low, machine("verl", 2), 1, 1) < traffic_seconds(full, machine("verl", 2), 1, 1)


def test_adapters_are_as_many_as_peft_makes() -> None:
    pytest.importorskip("peft")
    config = load_config(RECIPES / "quickstart.yaml", ["model.lora.rank=5"])
    policy = load_policy(config, None)
    made = sum(weight.numel() for weight in policy.model.parameters() if weight.requires_grad)
    assert shape_of(config.model).adapters(5) == made
