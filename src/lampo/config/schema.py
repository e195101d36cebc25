"""Every setting of a run: typed, frozen, validated. Field docstrings are the help text of `lampo config`.

A recipe is a YAML file with these sections. `load_config` reads one, applies `--set a.b=c`, and refuses unknown keys with
the nearest known name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from ..algo.registry import AdvantageOptions, PairwiseOptions, ProcessRewardOptions, check_surrogate
from ..options import Name, Options
from ..rewards import AnyReward, OverlongReward, VerifierReward
from ..tasks import AnyTask
from ..tasks.load import DecontaminationOptions
from ..types import Group, LogprobSource, SamplerCorrection
from ..verify import AnyVerifier
from .methods import METHODS
from .reward_list import rewards_as_list


class LoraOptions(Options):
    """Low-rank adapters through PEFT (arXiv 2106.09685). Needs the extra `lora`."""

    rank: int = Field(default=16, gt=0)
    """Rank of the update."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / rank."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers to adapt, as PEFT takes them."""


class ModelOptions(Options):
    """The policy: pretrained weights by `path`, or a `config` to start from scratch."""

    path: str | None = None
    """Hub name, folder, `.gguf` file, or a run directory, which stands for its model.
    `package:MODULE/FILE.gguf` is a GGUF file inside an installed Python package."""
    config: dict[str, Any] | None = None
    """A transformers configuration to start from scratch: `model_type` (qwen3, phi3, llama, ...) and its fields."""
    tokenizer: str | None = None
    """Hub name or folder of the tokenizer, where it does not come with `path`."""
    characters: str | None = None
    """Alphabet of a character tokenizer, for a model from scratch."""
    dtype: Literal["auto", "float32", "mixed", "bfloat16"] = "auto"
    """mixed: float32 weights, bfloat16 arithmetic. bfloat16: weights too, which rounds small updates away. auto: mixed on
    CUDA, else float32."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps. auto: CUDA if there is one, then MPS, then CPU."""
    attention: str = "auto"
    """Attention implementation of transformers: sdpa, eager, flash_attention_2, ... auto: transformers' own choice."""
    lora: LoraOptions | None = None
    """Train low-rank adapters instead of all weights."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    allow_remote_code: bool = False
    """Run model code that comes with the weights. Off: such a model is refused."""

    @model_validator(mode="after")
    def _one_source(self) -> ModelOptions:
        if (self.path is None) == (self.config is None):
            raise ValueError("give either `path` (pretrained weights) or `config` (from scratch), and not both")
        if self.config is not None and (self.tokenizer is None) == (self.characters is None):
            raise ValueError("a model from scratch needs either `tokenizer` or `characters`, and not both")
        if self.config is not None and "model_type" not in self.config:
            raise ValueError("`config` needs a `model_type`, for example qwen3")
        return self


class PromptOptions(Options):
    """How a problem becomes the tokens that the policy sees."""

    template: str = "{prompt}"
    """Text around the problem, for which `{prompt}` stands."""
    system: str | None = None
    """System message, for models with a chat template."""
    chat: bool | None = None
    """Use the tokenizer's chat template. Unset: if it has one."""
    chat_options: dict[str, Any] = Field(default_factory=dict)
    """Variables of the chat template, for example `enable_thinking: false` for Qwen3."""

    @model_validator(mode="after")
    def _template_has_prompt(self) -> PromptOptions:
        if "{prompt}" not in self.template:
            raise ValueError("`template` must contain {prompt}")
        return self


Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerOptions(Options):
    """AdamW (arXiv 1711.05101) with warm-up and a schedule."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: constant, or cosine down to 0 at the last step."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps over which the learning rate rises linearly."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """Decay of the two moments."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    max_gradient_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    eight_bit_moments: bool = False
    """Keep the two moments in 8 bits a number (arXiv 2110.02861), a quarter of their memory. Needs the extra `torchao`."""


class WarmstartOptions(Options):
    """Supervised steps on worked solutions before reinforcement learning: small models need the answer format first."""

    steps: int = Field(default=0, ge=0)
    """Optimiser steps. 0 leaves the stage out."""
    rows_per_step: int = Field(default=64, gt=0)
    """Solutions in one step."""
    optimizer: OptimizerOptions = OptimizerOptions(learning_rate=1e-5)
    """Optimiser of this stage."""


class VllmOptions(Options):
    """vLLM as the sampler. Needs the extra `vllm`."""

    memory_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of a GPU's memory that vLLM takes for its weights and its cache. It gives it back during an update."""
    cache_gib: float | None = Field(default=None, gt=0)
    """Size of its cache of keys and values in GiB, in place of a share. Unset: what its weights leave of `memory_share`, on a CPU 1."""
    scores_from: LogprobSource = "sampler"
    """Whose log-probs make the scores of LamPO's pairs. sampler: vLLM's. trainer: the learner's, at one more forward pass of all
    rollouts in each step."""
    max_mismatch: float = Field(default=0.1, gt=0)
    """The run stops where log-probs of vLLM and of the learner differ by more than this, in nats a token on average. Rounding to
    bfloat16 gave 0.005 at most for a tiny model."""

    @model_validator(mode="after")
    def _one_size(self) -> VllmOptions:
        if self.cache_gib is not None and self.shares_memory:
            raise ValueError("give `memory_share` or `cache_gib`, and not both")
        return self

    @property
    def shares_memory(self) -> bool:
        """Whether a share of the memory was asked for."""
        return self.memory_share != type(self).model_fields["memory_share"].default

    def cache_on(self, device: str) -> float | None:
        """GiB of the cache on a kind of device; None leaves it to `memory_share`."""
        return 1.0 if self.cache_gib is None and device == "cpu" else self.cache_gib


class SamplingOptions(Options):
    """How rollouts are drawn: at a temperature, from the policy itself."""

    engine: Literal["native", "vllm"] = "native"
    """Who draws them: native is the model itself, one token further for all rows at once. vllm is vLLM in the same process."""
    vllm: VllmOptions = VllmOptions()
    """Settings of vLLM."""
    problems_per_step: int = Field(default=16, gt=0)
    """P: problems in one training step."""
    group_size: int = Field(default=8, gt=1)
    """G: rollouts of one problem."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the sampling distribution. The update uses the same."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest completion. A longer one is cut and counted as truncated."""
    rows_at_once: int = Field(default=256, gt=0)
    """Most rollouts that are drawn at once. The native sampler draws fewer where memory does not hold their keys and values."""
    resample: int = Field(default=0, ge=0)
    """Dynamic sampling (DAPO, arXiv 2503.14476): most further rounds in a step. They replace problems whose responses are all right or
    all wrong; with partial credit, all worth the same. What is thrown away counts as cost. 0: every problem is kept."""
    accuracy_range: tuple[float, float] = (0.0, 1.0)
    """Least and greatest share of right responses of a problem that `resample` keeps (0.2 and 0.8 in PRIME, arXiv 2502.01456)."""

    @model_validator(mode="after")
    def _vllm_is_there_to_be_set(self) -> SamplingOptions:
        if self.engine != "vllm" and self.vllm != VllmOptions():
            raise ValueError("`vllm` has settings, and the engine is native: set `engine: vllm`, or leave them out")
        return self

    @field_validator("accuracy_range")
    @classmethod
    def _range_of_shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("must be two shares from 0 to 1, the smaller one first")
        return value

    def keeps(self, group: Group) -> bool:
        """Whether dynamic sampling keeps a group: its verdicts are not all worth the same, and the share of right ones is in range.

        Without partial credit the first means that some responses are right and some wrong.
        """
        low, high = self.accuracy_range
        return group.is_told_apart and low <= (group.accuracy or 0.0) <= high


class SpreadFilterOptions(Options):
    """Leave out groups whose reward std is below `share` of its moving average (RLPR, arXiv 2506.18254)."""

    share: float = Field(default=0.5, ge=0)
    """Least std of a group's rewards, in units of the moving average (0.5 for Qwen, 0.9 and 1.0 for Llama and Gemma in RLPR's code)."""
    decay: float = Field(default=0.99, ge=0, lt=1)
    """Weight of the past in the moving average, at each step."""
    average_from: int = Field(default=6, gt=0)
    """First step that enters the average. Until `filter_from` it is the plain mean of the steps so far."""
    filter_from: int = Field(default=11, gt=0)
    """First step in which groups are left out."""


class LossOptions(Options):
    """The update's objective, by default the clipped surrogate of PPO (arXiv 1707.06347)."""

    surrogate: Annotated[str, AfterValidator(check_surrogate)] = "token"
    """token: PPO's, a ratio for each token. sequence: one for each response (GSPO, arXiv 2507.18071). geometric: the geometric mean of
    clipped ratios (GMPO, arXiv 2507.20673). cispo: clipped weights (arXiv 2506.13585). gvpo: centred log-ratios (arXiv 2504.19599).
    python:module.function: your own f(tokens, clip_low, clip_high, beta) -> (N, T) losses."""
    clip_low: float = Field(default=0.2, gt=0, le=1)
    """Ratios below 1 - clip_low give no gradient where the advantage is negative."""
    clip_high: float = Field(default=0.2, gt=0)
    """Ratios above 1 + clip_high give no gradient where the advantage is positive (0.28 in DAPO, arXiv 2503.14476)."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of the implicit reward, for gvpo only."""
    aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """sequence: mean over rows of the mean over tokens (GRPO). token: mean over all tokens (DAPO). constant: as token, but divided
    by rows x max_new_tokens (Dr. GRPO)."""
    kl_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence (k3) to the policy that reinforcement learning started from. 0: no reference is kept."""
    sampler_correction: SamplerCorrection = "off"
    """Truncated importance weights, for a sampler whose log-probs differ from the learner's, as vLLM's do in bfloat16. off: none. token: a
    weight for each token. sequence: one for each response. With weights the old log-probs are the learner's."""
    sampler_cap: float = Field(default=2.0, gt=0)
    """The largest of these weights (2 in verl, 3 in TRL)."""


class TrainingOptions(Options):
    """The reinforcement-learning stage."""

    steps: int = Field(default=100, ge=0)
    """Training steps. Each samples P x G rollouts. 0: the policy is only measured."""
    updates_per_batch: int = Field(default=1, gt=0)
    """Optimiser steps on the same rollouts. The old log-probabilities are kept."""
    tokens_per_microbatch: Annotated[int, Field(gt=0)] | Literal["auto"] = "auto"
    """Most tokens, padding included, in one forward and backward pass. It never changes the gradient. auto: chosen from the machine,
    its threads and its memory. A run keeps what was chosen."""

    @property
    def budget(self) -> int:
        """`tokens_per_microbatch`, in a run, which has chosen."""
        assert self.tokens_per_microbatch != "auto"
        return self.tokens_per_microbatch


class EvaluationOptions(Options):
    """Sampled accuracy on held-out problems."""

    every: int = Field(default=20, gt=0)
    """Training steps between evaluations. There is also one before the first step and one after the last."""
    problems: int = Field(default=128, gt=0)
    """Held-out problems used during training, a fixed sample of them."""
    final_problems: int | None = Field(default=None, gt=0)
    """Held-out problems before the first and after the last step. Unset: the same as `problems`."""
    samples: int = Field(default=1, gt=0)
    """Responses per problem."""
    final_samples: int | None = Field(default=None, gt=0)
    """Responses per problem before the first and after the last step. Unset: the same as `samples`."""
    temperature: float | None = Field(default=None, gt=0)
    """Temperature of the responses that are measured. Unset: that of training."""
    greedy: bool = False
    """Measure the most likely response too. Where samples improve and it does not, the policy sharpened and learned nothing new."""
    skip: int = Field(default=0, ge=0)
    """Held-out problems to leave out: so many of the first ones of the fixed sample, because another choice was made on them."""
    benchmarks: list[str] = Field(default_factory=list)
    """Other tasks to measure on as often, such as aime24 or math500, with the prompt and the sampling of the run."""
    data: dict[str, str] = Field(default_factory=dict)
    """Local files of benchmarks, by name. The others come from the hub."""


class RunOptions(Options):
    """Where a run lives and what it leaves behind."""

    name: Name
    """Name of the run."""
    folder: str = "runs"
    """The run directory is made here."""
    seed: int = 0
    """Every random number of the run follows from it."""
    checkpoint_every: int = Field(default=50, gt=0)
    """Steps between checkpoints. There is one after the warm start, at the end and on Ctrl-C too."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """The newest checkpoints that are kept. With 2 or more a run survives a damaged one."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads of torch. Unset: torch's own choice. One is fastest for tiny models."""
    processes: int = Field(default=1, gt=0)
    """Processes that the engine's launcher starts on a machine, one a GPU. The native engine has one."""
    nodes: int = Field(default=1, gt=0)
    """Machines of a Ray cluster, each with so many processes. verl only."""
    engine_options: list[str] = Field(default_factory=list)
    """Options of the engine's own, as its command line takes them, for what a recipe does not say. verl only."""
    trackers: list[str] = Field(default_factory=list)
    """Experiment trackers fed beside metrics.jsonl: tensorboard, wandb, trackio, mlflow."""
    imports: list[str] = Field(default_factory=list)
    """Folders that own functions are imported from, beside the one where lampo runs. Unset: that of the recipe, if it names a function."""


EngineName = Literal["native", "trl", "verl"]


class TrainConfig(Options):
    """One run, whole."""

    run: RunOptions
    """The run and its directory."""
    engine: EngineName = "native"
    """Who samples and updates: native is this package itself, on one device. trl is TRL's trainer, in run.processes processes. verl is
    verl on Ray, on run.nodes machines."""
    method: str | None = None
    """Name of a published method: lampo, grpo, dapo, ... (`lampo methods`). Its settings hold where nothing else is written."""
    model: ModelOptions
    """The policy."""
    task: AnyTask
    """Where the problems come from."""
    decontamination: DecontaminationOptions = DecontaminationOptions()
    """Leave out training problems that share text with benchmarks."""
    prompt: PromptOptions = PromptOptions()
    """From problem to prompt."""
    verifier: AnyVerifier | None = None
    """Who decides what is right. Unset: the task, where its problems need a certain verifier, else numeric."""
    rewards: list[AnyReward] = Field(default=[VerifierReward()], min_length=1)
    """From verdict and text to reward: a list whose weighted values are added, such as [{name: verifier}, {name: rouge_l, weight: 0.2}]."""
    warmstart: WarmstartOptions = WarmstartOptions()
    """Supervised stage before reinforcement learning."""
    sampling: SamplingOptions = SamplingOptions()
    """Rollouts."""
    advantage: AdvantageOptions = PairwiseOptions()
    """The method: from rewards and scores to advantages."""
    spread_filter: SpreadFilterOptions | None = None
    """Leave groups whose rewards hardly differ out of the update. Unset: none."""
    loss: LossOptions = LossOptions()
    """The update's objective."""
    optimizer: OptimizerOptions = OptimizerOptions()
    """Optimiser of reinforcement learning."""
    training: TrainingOptions = TrainingOptions()
    """Length and batching of reinforcement learning."""
    evaluation: EvaluationOptions = EvaluationOptions()
    """Measuring on held-out problems."""

    @property
    def evaluation_temperature(self) -> float:
        """Temperature of the responses that are measured."""
        own = self.evaluation.temperature
        return self.sampling.temperature if own is None else own

    @model_validator(mode="after")
    def _method_estimates_its_way(self) -> TrainConfig:
        named = METHODS[self.method].settings.get("advantage", {}).get("name") if self.method in METHODS else None
        if named is not None and self.advantage.name != named:
            raise ValueError(
                f"the method {self.method} has the estimator {named}, and not {self.advantage.name}: name another method, "
                "or none (method: null)"
            )
        return self

    @model_validator(mode="after")
    def _process_rewards_learn_from_verdicts(self) -> TrainConfig:
        if isinstance(self.advantage, ProcessRewardOptions) and not self.rewarded_by(VerifierReward):
            raise ValueError(
                f"the estimator {self.advantage.name} learns from verdicts, so it needs the reward verifier"
            )
        return self

    @model_validator(mode="after")
    def _a_mean_is_of_rewards_from_0(self) -> TrainConfig:
        if not self.advantage.divides_by_mean:
            return self
        for reward in self.rewards:
            if reward.weight * (-1 if isinstance(reward, OverlongReward) else 1) < 0:
                raise ValueError(
                    f"the estimator {self.advantage.title} divides by a group's mean reward, so no reward may be negative: "
                    f"leave out {reward.title}, or take another method or advantage.scale"
                )
        return self

    @field_validator("rewards", mode="before")
    @classmethod
    def _rewards_as_list(cls, rewards: Any) -> Any:
        """Settings change rewards by their titles, as in rewards.rouge_l.weight. Here they are a list."""
        return rewards_as_list(rewards) if isinstance(rewards, Mapping) else rewards

    @field_validator("rewards")
    @classmethod
    def _one_title_each(cls, rewards: list[AnyReward]) -> list[AnyReward]:
        titles = [reward.title for reward in rewards]
        if twice := sorted({title for title in titles if titles.count(title) > 1}):
            raise ValueError(f"two rewards are called {', '.join(twice)}: give one of them a `label`")
        return rewards

    def rewarded_by(self, kind: type[AnyReward]) -> bool:
        """Whether a reward of this kind counts."""
        return any(isinstance(reward, kind) and reward.weight != 0 for reward in self.rewards)
