"""Every setting of a run: typed, frozen, validated. Field docstrings are the help text of `lampo config`.

A recipe is a YAML file with these sections. `load_config` reads one, applies `--set a.b=c`, and refuses unknown keys with
the nearest known name.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from .estimate import AdvantageOptions, PairwiseOptions, PrimeOptions
from .methods import METHODS, method_settings, under, with_method
from .options import Options
from .rewards import RewardOptions
from .spread import SpreadFilterOptions
from .surrogates import Surrogate
from .tasks import AnyTask
from .tasks.load import DecontaminationOptions
from .types import Group, LampoError
from .verify import AnyVerifier


class LoraOptions(Options):
    """Low-rank adapters through PEFT (arXiv 2106.09685); needs the extra `lora`."""

    rank: int = Field(default=16, gt=0)
    """Rank of the update."""
    alpha: float = Field(default=32, gt=0)
    """The update is scaled by alpha / rank."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers to adapt, as PEFT takes them."""


class ModelOptions(Options):
    """The policy: pretrained weights by `path`, or a `config` to start from scratch."""

    path: str | None = None
    """Hub name, folder, `.gguf` file, or `package:MODULE/FILE.gguf` for a GGUF file inside an installed Python package."""
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
    """Text around the problem; `{prompt}` stands for it."""
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


class WarmstartOptions(Options):
    """Supervised steps on worked solutions before reinforcement learning: small models need the answer format first."""

    steps: int = Field(default=0, ge=0)
    """Optimiser steps; 0 leaves the stage out."""
    rows_per_step: int = Field(default=64, gt=0)
    """Solutions in one step."""
    optimizer: OptimizerOptions = OptimizerOptions(learning_rate=1e-5)
    """Optimiser of this stage."""


class SamplingOptions(Options):
    """How rollouts are drawn: at a temperature, from the policy itself."""

    problems_per_step: int = Field(default=16, gt=0)
    """P: problems in one training step."""
    group_size: int = Field(default=8, gt=1)
    """G: rollouts of one problem."""
    temperature: float = Field(default=1.0, gt=0)
    """Temperature of the sampling distribution; the update uses the same."""
    max_new_tokens: int = Field(default=256, gt=0)
    """Longest completion; a longer one is cut and counted as truncated."""
    rows_at_once: int = Field(default=256, gt=0)
    """Most rollouts whose cache is held in memory at once; at least all of one problem."""
    resample: int = Field(default=0, ge=0)
    """Most further rounds of sampling in a step, for other problems in place of those whose responses are all right or all wrong
    (dynamic sampling, DAPO, arXiv 2503.14476). What is thrown away counts as cost. 0: every problem is kept."""
    accuracy_range: tuple[float, float] = (0.0, 1.0)
    """Least and greatest share of right responses of a problem that `resample` keeps (0.2 and 0.8 in PRIME, arXiv 2502.01456)."""

    @field_validator("accuracy_range")
    @classmethod
    def _range_of_shares(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 <= value[0] <= value[1] <= 1:
            raise ValueError("must be two shares from 0 to 1, the smaller one first")
        return value

    def keeps(self, group: Group) -> bool:
        """Whether dynamic sampling keeps a group: some of its responses are right and some wrong, and their share is in range."""
        low, high = self.accuracy_range
        return group.is_mixed and low <= (group.accuracy or 0.0) <= high


class LossOptions(Options):
    """The update's objective, by default the clipped surrogate of PPO (arXiv 1707.06347)."""

    surrogate: Surrogate = "token"
    """token: PPO's, a ratio for each token; sequence: one for each response (GSPO, arXiv 2507.18071); geometric: the geometric mean of
    clipped ratios (GMPO, arXiv 2507.20673); cispo: clipped weights (arXiv 2506.13585); gvpo: centred log-ratios (arXiv 2504.19599)."""
    clip_low: float = Field(default=0.2, gt=0, le=1)
    """Ratios below 1 - clip_low give no gradient where the advantage is negative."""
    clip_high: float = Field(default=0.2, gt=0)
    """Ratios above 1 + clip_high give no gradient where the advantage is positive (0.28 in DAPO, arXiv 2503.14476)."""
    beta: float = Field(default=0.1, ge=0)
    """Weight of the implicit reward; gvpo only."""
    aggregation: Literal["sequence", "token", "constant"] = "sequence"
    """sequence: mean over rows of the mean over tokens (GRPO); token: mean over all tokens (DAPO); constant: as token, but divided
    by rows x max_new_tokens (Dr.GRPO)."""
    kl_coefficient: float = Field(default=0.0, ge=0)
    """Weight of the KL divergence (k3) to the policy that reinforcement learning started from. 0: no reference model is loaded."""

    @property
    def whole_groups(self) -> bool:
        """Whether the surrogate compares the rows of a group, so that all of them, those without an advantage too, go together."""
        return self.surrogate == "gvpo"


class TrainingOptions(Options):
    """The reinforcement-learning stage."""

    steps: int = Field(default=100, ge=0)
    """Training steps; each samples P x G rollouts. 0: the policy is only measured."""
    updates_per_batch: int = Field(default=1, gt=0)
    """Optimiser steps on the same rollouts; the old log-probabilities are kept."""
    tokens_per_microbatch: int = Field(default=16384, gt=0)
    """Most tokens, padding included, in one forward and backward pass; never changes the gradient."""


class EvaluationOptions(Options):
    """Sampled accuracy on held-out problems."""

    every: int = Field(default=20, gt=0)
    """Training steps between evaluations; also done before the first and after the last."""
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
    """Measure the most likely response too: what a policy gains beyond it by sampling alone, it did not learn, but grew surer of."""
    skip: int = Field(default=0, ge=0)
    """Held-out problems left out: as many as another choice was made on (the first ones of that sample)."""
    benchmarks: list[str] = Field(default_factory=list)
    """Other tasks to measure on as often, such as aime24 or math500, with the prompt and the sampling of the run."""
    data: dict[str, str] = Field(default_factory=dict)
    """Local files of benchmarks, by name; the others come from the hub."""


class RunOptions(Options):
    """Where a run lives and what it leaves behind."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run."""
    folder: str = "runs"
    """The run directory is made here."""
    seed: int = 0
    """Every random number of the run follows from it."""
    checkpoint_every: int = Field(default=50, gt=0)
    """Steps between checkpoints; there is one after the warm start, at the end and on Ctrl-C too."""
    keep_checkpoints: int = Field(default=2, gt=0)
    """Older ones are deleted; at least 2 lets a run survive a damaged one."""
    threads: int | None = Field(default=None, gt=0)
    """CPU threads of torch. Unset: torch's own choice. One is fastest for tiny models."""
    trackers: list[str] = Field(default_factory=list)
    """Experiment trackers fed beside metrics.jsonl: tensorboard, wandb, trackio, mlflow."""


class TrainConfig(Options):
    """One run, whole."""

    run: RunOptions
    """The run and its directory."""
    method: str | None = None
    """Name of a published method, whose settings lie under those given here: lampo, grpo, dapo, ... (`lampo methods`)."""
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
    rewards: RewardOptions = RewardOptions()
    """From verdict and text to reward."""
    warmstart: WarmstartOptions = WarmstartOptions()
    """Supervised stage before reinforcement learning."""
    sampling: SamplingOptions = SamplingOptions()
    """Rollouts."""
    advantage: AdvantageOptions = PairwiseOptions(name="pairwise")
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
        if self.method == "cot" and self.training.steps > 0:
            raise ValueError(f"the method cot does not train: training.steps must be 0, and is {self.training.steps}")
        return self

    @model_validator(mode="after")
    def _process_rewards_learn_from_verdicts(self) -> TrainConfig:
        if isinstance(self.advantage, PrimeOptions) and self.rewards.source != "verifier":
            raise ValueError("the estimator prime learns from verdicts, so it needs rewards.source: verifier")
        return self


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-6 is a number (YAML 1.1 wants 1.0e-6) and a repeated key is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # pyright: ignore[reportUnknownMemberType]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def load_config(recipe: Path, settings: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe and apply `a.b=c` settings over it.

    The settings of `method` lie under those of the recipe. `--set method=NAME` puts another method in its place: its settings then
    win over the recipe's, and settings after it over them.
    A setting whose key ends in `.name` of a section with variants (task, verifier, advantage) replaces that section: the
    recipe's options for the other variant would make no sense.

    Raises:
        LampoError: the file is missing or is not YAML, a key is unknown (the nearest known name is given), a value has the
            wrong type or range. All problems are listed at once.
    """
    return parse_config(read_yaml(recipe, "recipe", "`model:` and `task:`"), str(recipe), settings)


def read_yaml(file: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping in a YAML file; `what` it is, and an example of its keys, go into the LampoError."""
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise LampoError(f"Cannot read the {what} {file}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise LampoError(f"The {what} {file} is not UTF-8 text: {error}.") from None
    except yaml.YAMLError as error:
        raise LampoError(f"The {what} {file} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise LampoError(f"The {what} {file} is empty or no mapping: it needs keys such as {example}.")
    return values


def parse_config(values: Mapping[str, Any], source: str, settings: Sequence[str] = ()) -> TrainConfig:
    """Validate nested values, settings applied; `source` names them in the message of the LampoError."""
    values = copy.deepcopy(dict(values))
    if values.get("method") is not None:
        values = under(method_settings(values["method"]), values)
    parsed = [parse_setting(setting) for setting in settings]
    for index, (key, value) in enumerate(parsed):
        if key != "method" or value is None:
            _apply(values, settings[index])
        elif all(later != "method" for later, _ in parsed[index + 1 :]):  # of several methods the last one counts
            values = with_method(values, value)
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        lines = sorted({_explain(detail) for detail in error.errors()})
        raise LampoError(
            f"{source} has settings that do not hold:\n" + "\n".join(f"  {line}" for line in lines)
        ) from None


def parse_setting(setting: str) -> tuple[str, Any]:
    """The key and the value of a setting "key=value"; the value is read as YAML.

    Raises:
        LampoError: it has no key or no "=".
    """
    key, separator, text = setting.partition("=")
    if not separator or not all(key.strip().split(".")):
        raise LampoError(
            f"--set {setting}: write it as section.key=value, for example --set optimizer.learning_rate=1e-6."
        )
    try:
        return key.strip(), yaml.load(text, _Loader) if text.strip() else None
    except yaml.YAMLError:
        return key.strip(), text


def _apply(values: dict[str, Any], setting: str) -> None:
    path, value = parse_setting(setting)
    keys = path.split(".")
    target = values
    for depth, key in enumerate(keys[:-1]):
        if not isinstance(target.get(key), dict):
            if target.get(key) is not None:
                raise LampoError(f"--set {setting}: {'.'.join(keys[: depth + 1])} is a value, not a section.")
            target[key] = {}
        target = target[key]
    if keys[-1] == "name" and keys[0] in ("task", "verifier", "advantage") and target.get("name") != value:
        target.clear()
    target[keys[-1]] = value
    if keys == ["model", "path"] and value is not None:  # a model put in for one from scratch
        for key in ("config", "characters"):
            target.pop(key, None)


def _explain(detail: Any) -> str:
    """One validation error in plain words, its place as the user writes it."""
    place, section = _place(detail["loc"])
    where = ".".join(place)
    match detail["type"]:
        case "extra_forbidden":
            known = [] if section is None else list(section.model_fields)
            near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.5)
            prefix = ".".join(place[:-1])
            guess = (
                f"; did you mean {prefix + '.' if prefix else ''}{near[0]}?" if near else f"; known: {', '.join(known)}"
            )
            return f"{where} is not a setting{guess}"
        case "missing":
            return f"{where} is required"
        case "union_tag_not_found":
            return f"{where} needs a `name` (one of {detail['ctx'].get('discriminator', 'name')})"
        case "union_tag_invalid":
            return f"{where}.name is {detail['ctx']['tag']!r}, but known are {detail['ctx']['expected_tags']}"
        case _:
            message = detail["msg"].removeprefix("Value error, ")
            given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
            return f"{where}: {message}{given}" if where else message  # the recipe as a whole has no key


def _place(location: Sequence[str | int]) -> tuple[list[str], type[BaseModel] | None]:
    """Pydantic's location as keys of the recipe, without the tags of unions; and the section class of the last key."""
    place: list[str] = []
    holder: type[BaseModel] | None = None
    sections: dict[str, type[BaseModel]] = {"": TrainConfig}
    for key in map(str, location):
        if key in sections:  # the tag of a union
            sections = {"": sections[key]}
            continue
        place.append(key)
        holder = sections.get("")
        field = holder.model_fields.get(key) if holder else None
        sections = _sections(field.annotation) if field else {}
    return place, holder


def _sections(annotation: Any) -> dict[str, type[BaseModel]]:
    """The section classes that an annotation admits, by their `name`; a single one under the empty key."""
    found = list(_models(annotation))
    if len(found) == 1:
        return {"": found[0]}
    return {get_args(model.model_fields["name"].annotation)[0]: model for model in found}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, typing.Union, types.UnionType):
        for argument in get_args(annotation):
            yield from _models(argument)


def dump_config(config: BaseModel) -> str:
    """Every setting as plain YAML, a recipe that gives this configuration."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def describe_config(config: BaseModel, *, indent: int = 0) -> str:
    """Every setting as YAML with its meaning, type and default as comments; it loads as a recipe."""
    lines: list[str] = []
    pad = " " * indent
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        meaning = " ".join((field.description or "").split())
        if isinstance(value, BaseModel):
            lines += [
                "",
                f"{pad}# {meaning}" if meaning else "",
                f"{pad}{name}:",
                describe_config(value, indent=indent + 2),
            ]
            continue
        lines.append(f"{pad}# {meaning} ({_type_text(field)})")
        plain = config.model_dump(mode="json", include={name})[name]  # sections in a list have no lines of their own
        lines.append(f"{pad}{name}: {json.dumps(plain, ensure_ascii=False)}")
    return "\n".join(line for line in lines if line or indent == 0)


def _type_text(field: FieldInfo) -> str:
    annotation = field.annotation
    if get_origin(annotation) is Literal:
        kind = " | ".join(map(str, get_args(annotation)))
    else:
        kind = annotation.__name__ if isinstance(annotation, type) and not get_args(annotation) else str(annotation)
        kind = kind.replace("typing.", "").replace("NoneType", "None")
    bounds = "".join(
        f", {sign} {getattr(rule, name)}"
        for rule in field.metadata
        for name, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="))
        if getattr(rule, name, None) is not None
    )
    return (
        f"{kind}{bounds}, required"
        if field.is_required()
        else f"{kind}{bounds}, default {field.get_default(call_default_factory=True)!r}"
    )
