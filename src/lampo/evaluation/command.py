"""`lampo eval`: what is measured, on what, from where, and how the result is told.

The engine is imported where it is used: asking a server needs none, and a mistake in a recipe is told at once.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..config.load import load_config, parse_config
from ..config.recipes import find_recipe
from ..config.schema import TrainConfig
from ..messages import names_of, printable
from ..store.checkpoints import latest_checkpoint, model_of_run
from ..store.files import write_file
from ..tasks import TASKS
from ..tasks.command import files_by_name
from ..tasks.load import load_benchmark
from ..tasks.split import subset
from ..types import LampoError
from ..verify import VerifierPool, prepare_verifiers
from ..verify.pool.progress import bar
from ..view.console import Progress
from ..view.output import say, unfailing_output
from .benchmarks import benchmark
from .measure import Measurement, markdown, measure
from .records import compare
from .respond import Responder
from .respond.endpoint import EndpointResponder, public_url

SECONDS_BETWEEN_LINES = 5.0
TEMPERATURE, MAX_NEW_TOKENS = 0.6, 4096
"""Of a plain model: Qwen3's model cards recommend this temperature for thinking."""


FLAGS = {
    "benchmarks": "--benchmarks",
    "settings": "--set",
    "samples": "--samples",
    "num_problems": "--problems",
    "temperature": "--temperature",
    "max_new_tokens": "--max-new-tokens",
    "backend": "--backend",
    "concurrency": "--concurrency",
    "requests_per_minute": "--requests-per-minute",
    "timeout_s": "--timeout",
    "tries": "--tries",
    "data": "--data",
    "output": "--output",
    "seed": "--seed",
}
SERVER = {"concurrency", "requests_per_minute", "timeout_s", "tries"}


def evaluate(model: str | None, *, compared: tuple[Path, Path] | None, **options: Any) -> str:
    """What `lampo eval` prints: see `evaluate_model` and `compare_folders`. Output that fails stops neither.

    Raises:
        LampoError: an option has no effect here, or is out of its range.
    """
    with unfailing_output():
        given = {name for name, value in options.items() if value is not None and value != []}
        if compared is not None:
            model_given = ["a model"] if model is not None else []
            _refuse(
                model_given + [FLAGS[name] for name in FLAGS if name in given], "with --compare, which asks no model"
            )
            text = compare_folders(*compared)
        else:
            try:
                text = evaluate_model(model, given, **options)
            except KeyboardInterrupt:
                _stop("Stopped before anything was measured.")
        print(text)
        return text


def _stop(told: str) -> NoReturn:
    say(told)
    raise SystemExit(130) from None


def evaluate_model(
    model: str | None,
    given: Collection[str],
    *,
    benchmarks: str | None,
    settings: Sequence[str],
    num_problems: int | None,
    samples: int | None,
    temperature: float | None,
    max_new_tokens: int | None,
    backend: str | None,
    data: Sequence[str],
    output: Path | None,
    seed: int | None,
    **server: Any,
) -> str:
    """Held-out accuracy of a run or recipe, or a table of benchmarks where some are named.

    Args:
        model: what is measured.
        given: names of the options that the user gave, of those in `FLAGS`.
        benchmarks: names, separated by commas.
        settings, num_problems, samples, temperature, max_new_tokens, backend, data, output, seed: None: not given.
        server: the options of `SERVER`.

    Raises:
        LampoError: there is nothing to measure, it cannot be measured, or an option has no effect; see `measure_heldout`
            and `measure_benchmarks`.
    """
    if model is None:
        raise LampoError("Say what to measure: lampo eval MODEL_OR_RUN --benchmarks aime24,math500, or --compare A B.")
    is_server = backend is not None and backend.startswith(("http://", "https://"))
    _check_temperature(temperature, "server" if is_server else backend or "native")
    if benchmarks is None:
        idle = {"backend", "data", "output", "seed", *SERVER} & set(given)
        _refuse(
            [FLAGS[name] for name in FLAGS if name in idle],
            "on the held-out problems of a run or recipe, without --benchmarks",
        )
        return measure_heldout(
            Path(model), settings, num_problems, samples=samples, temperature=temperature, max_new_tokens=max_new_tokens
        )
    names, files = names_of("--benchmarks", benchmarks, list(TASKS)), files_by_name(data)
    idle = ({"settings"} if is_server else SERVER) & set(given)
    _refuse([FLAGS[name] for name in FLAGS if name in idle], "with a server" if is_server else "without a server")
    _refuse([f"--data {name}" for name in files if name not in names], f"on the benchmarks {', '.join(names)}")
    return measure_benchmarks(
        model,
        names,
        settings,
        samples=samples,
        num_problems=num_problems,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        backend=backend or "native",
        data=files,
        output=output,
        seed=seed or 0,
        server={name: value for name, value in server.items() if value is not None},
    )


def _refuse(idle: Sequence[str], where: str) -> None:
    """Refuse what was given and would be ignored."""
    if idle:
        verb = "has" if len(idle) == 1 else "have"
        raise LampoError(f"{', '.join(idle)} {verb} no effect {where}. Leave {'it' if len(idle) == 1 else 'them'} out.")


def _check_temperature(temperature: float | None, backend: str) -> None:
    if temperature is None or (math.isfinite(temperature) and temperature > 0):
        return
    if temperature == 0 and backend != "native":
        return  # the most likely response
    least = "above 0" if backend == "native" else "of at least 0"
    raise LampoError(f"--temperature {temperature:g}: give a number {least}, such as {TEMPERATURE:g}.")


def measure_heldout(
    place: Path,
    settings: Sequence[str],
    num_problems: int | None,
    *,
    samples: int | None = None,
    temperature: float | None = None,
    max_new_tokens: int | None = None,
) -> str:
    """Sampled accuracy, with a 95 % interval, on the held-out problems of a recipe's model or a run's latest checkpoint.

    Args:
        place: a run or recipe.
        settings: of `--set`.
        num_problems, samples, temperature, max_new_tokens: instead of those of the recipe.

    Raises:
        LampoError: there is no such run or recipe, or the run has no checkpoint.
    """
    config, weights = _recipe_or_run(place, settings)
    longest = _or(max_new_tokens, config.sampling.max_new_tokens)
    config = config.model_copy(update={"sampling": config.sampling.model_copy(update={"max_new_tokens": longest})})
    temperature = _or(temperature, config.evaluation_temperature)
    from ..model.policy import load_policy
    from ..process import prepare
    from ..rollout.build import native_sampler
    from .heldout import evaluate

    prepare(config)
    heldout = subset(config.task.load().heldout, num_problems)
    if not heldout:
        raise LampoError(f"The task of {place} has no held-out problems.")
    with VerifierPool() as pool, Progress("evaluation") as progress:
        pool.start(prepare_verifiers(heldout, config.verifier))  # while the model is loaded
        policy = load_policy(config, weights)
        progress.stage("evaluation", total=1)
        what = weights or config.model.path or "the untrained model"
        progress.note(f"evaluating {what} on {len(heldout)} held-out problems")
        sampler = native_sampler(policy, config, temperature)
        samples = samples or config.evaluation.final_samples or config.evaluation.samples
        record = evaluate(policy, sampler, heldout, config, pool, samples=samples, on_progress=progress.tokens)
    named = ("accuracy", "low", "high", "truncated", "unknown")
    share = {name: f"{record[f'evaluation/{name}']:.1%}" for name in named}
    return (
        f"accuracy {share['accuracy']} (95 % interval {share['low']} to {share['high']}; "
        f"{record['evaluation/problems']:.0f} problems x {samples} samples at temperature "
        f"{temperature:g}); truncated {share['truncated']}, unknown {share['unknown']}, "
        f"mean length {record['evaluation/length_mean']:.0f} tokens"
    )


def measure_benchmarks(
    model: str,
    benchmarks: Sequence[str],
    settings: Sequence[str],
    *,
    samples: int | None,
    num_problems: int | None,
    temperature: float | None,
    max_new_tokens: int | None,
    backend: str,
    data: Mapping[str, str],
    output: Path | None,
    seed: int,
    server: Mapping[str, Any],
) -> str:
    """Measure a model on benchmarks. What the folder already holds is not asked again.

    Returns:
        The summary as Markdown, and where the records are.

    Raises:
        LampoError: the model, a benchmark or the server cannot be had, or the folder was begun with other settings.
    """
    problems = {name: subset(load_benchmark(name, data), num_problems) for name in benchmarks}
    summaries: dict[str, dict[str, Any]] = {}
    with VerifierPool() as pool:
        for name, asked in problems.items():
            pool.start(prepare_verifiers(asked, benchmark(name).verifier))  # while the model is loaded
        responder, identity, folder = _responder(model, settings, temperature, max_new_tokens, backend, server)
        folder = output or folder
        for name, asked in problems.items():
            with bar(f"{name} in {folder}") as show:
                measurement = Measurement(name, asked, samples or 1, seed)
                try:
                    summaries[name] = measure(measurement, responder, pool, folder, identity, on_progress=show)
                except KeyboardInterrupt:
                    _stop(f"Stopped. What was answered is in {folder}. The same command goes on with the others.")
    table = markdown(summaries)
    write_file(folder / "summary.md", table.encode())
    return f"{table}\nrecords: {folder}"


def compare_folders(a: Path, b: Path) -> str:
    """How two evaluations differ on the same problems, as Markdown."""
    lines = [
        f"{b} minus {a}, in points of avg@k; the interval resamples the problems that both answered",
        "",
        "| benchmark | difference | 95 % interval | problems | better | worse |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, difference in compare(a, b).items():
        value, low, high = (
            100 * end for end in (difference.estimate.value, difference.estimate.low, difference.estimate.high)
        )
        lines.append(
            f"| {name} | {value:+.1f} | {low:+.1f} to {high:+.1f} | {difference.estimate.num_problems} | "
            f"{difference.num_better} | {difference.num_worse} |"
        )
    return "\n".join(lines)


def _responder(
    model: str,
    settings: Sequence[str],
    temperature: float | None,
    max_new_tokens: int | None,
    backend: str,
    server: Mapping[str, Any],
) -> tuple[Responder, dict[str, Any], Path]:
    """What answers, all that its answers depend on, and where its records go if nothing else is said."""
    if backend.startswith(("http://", "https://")):
        chosen = {"temperature": _or(temperature, TEMPERATURE), "max_new_tokens": _or(max_new_tokens, MAX_NEW_TOKENS)}
        responder = EndpointResponder(backend, model, tell=FailureLines(), **server, **chosen)
        return responder, {"model": model, "backend": public_url(backend), **chosen}, _folder(model)
    if backend not in ("native", "vllm"):
        raise LampoError(
            f"There is no backend {public_url(backend)!r}: native, vllm, or the URL of a server, such as http://localhost:8000/v1."
        )
    place = Path(model)
    is_own = (place / "config.yaml").is_file() or place.suffix in (".yaml", ".yml")
    config, weights = _recipe_or_run(place, settings) if is_own else (_plain_model(model, settings), None)
    sampling = {
        "temperature": _or(temperature, config.evaluation_temperature),
        "max_new_tokens": _or(max_new_tokens, config.sampling.max_new_tokens),
    }
    config = config.model_copy(update={"sampling": config.sampling.model_copy(update=sampling)})
    responder = _vllm(config, weights, sampling) if backend == "vllm" else _native(config, weights)
    prompt = config.prompt.model_dump(exclude={"template"})
    identity = {
        "model": str(weights or model),
        "backend": backend,
        "dtype": config.model.dtype,
        "prompt": prompt,
        **sampling,
    }
    is_run = weights is not None
    return responder, identity, place / "evaluations" / weights.name if is_run else _folder(model)


class FailureLines:
    """Lines on standard error for the tries that fail: the first at once, then one for all of each five seconds."""

    def __init__(self) -> None:
        self._last, self._held = -math.inf, 0

    def __call__(self, line: str) -> None:
        """One try has failed."""
        self._held += 1
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES:
            return
        more = f" ({self._held} since the line before)" if self._held > 1 else ""
        print(printable(f"failed: {line}{more}"), file=sys.stderr, flush=True)
        self._last, self._held = now, 0


def _vllm(config: TrainConfig, weights: Path | None, sampling: Mapping[str, Any]) -> Responder:
    from ..process import prepare
    from .respond.vllm import VllmResponder

    prepare(config)
    return VllmResponder(config.model, config.prompt, weights=weights, **sampling)


def _native(config: TrainConfig, weights: Path | None) -> Responder:
    from ..model.policy import load_policy
    from ..process import prepare
    from ..rollout.build import native_sampler
    from .respond.native import NativeResponder

    prepare(config)
    policy = load_policy(config, weights)
    return NativeResponder(
        policy,
        native_sampler(policy, config),
        config.prompt,
        rows_at_once=config.sampling.rows_at_once,
        max_new_tokens=config.sampling.max_new_tokens,
    )


def _recipe_or_run(place: Path, settings: Sequence[str]) -> tuple[TrainConfig, Path | None]:
    if not place.is_dir():
        return load_config(find_recipe(place), settings), None
    config = load_config(place / "config.yaml", settings)
    weights, _ = latest_checkpoint(place / "checkpoints")
    return config, weights or model_of_run(place)  # its checkpoints may have been deleted for room


def _plain_model(model: str, settings: Sequence[str]) -> TrainConfig:
    values: dict[str, Any] = {
        "run": {"name": "evaluation"},
        "model": {"path": model},
        "task": {"name": "arithmetic"},
        "sampling": {"temperature": TEMPERATURE, "max_new_tokens": MAX_NEW_TOKENS, "rows_at_once": 32},
    }
    return parse_config(values, f"the model {model}", settings)


def _folder(model: str) -> Path:
    return Path("evaluations") / model.rstrip("/").replace("package:", "").replace("/", "--").replace(":", "-")


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
