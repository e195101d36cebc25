"""The command line: lampo train | plan | eval | inspect | compare | signal | verify | tasks | methods | config.

Commands import what they need, inside.
"""

from __future__ import annotations

from . import process as environment  # noqa: F401  it must run before torch is imported

# isort: split

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from . import __version__
from .messages import printable
from .store.files import reason
from .types import LampoError

app = typer.Typer(
    name="lampo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

READERS = {"pyarrow", "datasets"}
ENGINE = {"torch", "transformers", "tokenizers", "safetensors", "plotly", "jinja2", "scipy", "numpy"}
"""Packages of the extra `train`: what reads data, and the rest."""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lampo {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train a reasoning model on problems whose answers can be checked, with LamPO (arXiv 2605.21235)."""


Recipe = Annotated[
    Path,
    typer.Argument(help="A YAML file, or the name of a packaged recipe, such as quickstart.", show_default=False),
]
RecipeOrRun = Annotated[
    Path,
    typer.Argument(
        help="A YAML file, or the name of a packaged recipe, such as quickstart. With --resume also a run directory.",
        show_default=False,
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change a setting of the recipe, e.g. optimizer.learning_rate=1e-6. May be repeated.",
    ),
]

Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="NAME=FILE", help="A local file of a benchmark, instead of the hub. May be repeated."
    ),
]


@app.command()
def train(
    recipe: RecipeOrRun,
    settings: Settings = None,
    engine: Annotated[
        str | None,
        typer.Option(help="Who trains: native, trl or verl. The same as the recipe's setting engine.", metavar="NAME"),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(help="Processes of the engine on a machine, one a GPU. The same as run.processes.", min=1),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option(help="Machines of a Ray cluster, with --engine verl. The same as run.nodes.", min=1),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume the newest run of this recipe from its latest checkpoint.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Train nothing. Check data, prompts and answers, and count tokens and memory."),
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="With --resume: resume although this setting, or the data, differs from the run's start. May be repeated.",
        ),
    ] = None,
) -> None:
    """Train a policy: warm start, then reinforcement learning. It ends with a report."""
    from .train.command import train as run

    chosen = {"engine": engine, "run.processes": processes, "run.nodes": nodes}
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    run(recipe, [*(settings or []), *given], resume=resume, dry_run=dry_run, accepted=accept or [])


@app.command()
def plan(
    recipe: Recipe,
    settings: Settings = None,
    gpus: Annotated[int, typer.Option(help="GPUs, 1 to 512.")] = 1,
    gpu: Annotated[str, typer.Option(help="Their kind: a100, h100, h200, b200, l40s; or cpu.")] = "h100",
    length: Annotated[
        float | None, typer.Option(help="Mean response in tokens; half of the longest if not given.")
    ] = None,
    lengths: Annotated[
        Path | None, typer.Option(help="Take the lengths of responses from this run, in place of an assumed spread.")
    ] = None,
    prompt: Annotated[int | None, typer.Option(help="Tokens of a prompt; 200 if not given.", min=1)] = None,
) -> None:
    """Plan a run: memory, seconds a step, hours and the bottleneck, as ranges, on GPUs that need not be there."""
    from .plan.command import print_plan

    print_plan(recipe, settings or [], gpus=gpus, gpu=gpu, length=length, lengths=lengths, prompt=prompt)


@app.command("eval")
def evaluate_command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run, a recipe (YAML), or a model: a hub name, a folder, a .gguf file. With a URL as --backend: its name there.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(help="What to measure on, separated by commas: aime24, aime25, math500, gpqa_diamond, gsm8k, ..."),
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Responses to each problem.", min=1)] = None,
    problems: Annotated[
        int | None, typer.Option(help="Problems of each benchmark, a fixed sample. All of them if not given.", min=1)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Temperature of the sampling. 0.6 for a model if not given.")
    ] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest response. 4,096 for a model if not given.", min=1)
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            help="native (if not given), vllm (in this process), or the URL of a server with OpenAI's chat completions, such as http://localhost:8000/v1."
        ),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Most requests to a server at once. 16 if not given.", min=1)
    ] = None,
    requests_per_minute: Annotated[
        float | None, typer.Option(help="Most requests to a server in a minute.", min=0.1)
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that a server may take for one request. 600 if not given.", min=0.1)
    ] = None,
    tries: Annotated[int | None, typer.Option(help="Tries of each request to a server. 6 if not given.", min=1)] = None,
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the records. With the same folder the evaluation resumes.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the sampling. 0 if not given.")] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compare two folders that lampo eval wrote: the second minus the first."),
    ] = None,
) -> None:
    """Measure a model on benchmarks, or a run or recipe on its own held-out problems. With --compare: compare two evaluations."""
    from .evaluation.command import evaluate

    evaluate(
        model,
        compared=compare,
        benchmarks=benchmarks,
        settings=settings or [],
        samples=samples,
        num_problems=problems,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
        backend=backend,
        concurrency=concurrency,
        requests_per_minute=requests_per_minute,
        timeout_s=timeout,
        tries=tries,
        data=data or [],
        output=output,
        seed=seed,
    )


@app.command()
def inspect(
    run: Annotated[
        Path,
        typer.Argument(
            help="A run directory, or a folder that lampo eval wrote. Also TRL's output_dir or verl's rollout_data_dir.",
            show_default=False,
        ),
    ],
    step: Annotated[int | None, typer.Option(help="Begin at this step. With --export: only its groups.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the most telling groups into one HTML file, instead of opening the browser."),
    ] = None,
    groups: Annotated[int, typer.Option(help="Most groups in that file.", min=1)] = 32,
    port: Annotated[int, typer.Option(help="Port of the local server. 0: any free one.", min=0, max=65535)] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the browser, or only print the address.")
    ] = True,
) -> None:
    """Look at rollouts: texts, rewards, tokens by their log-prob, and why the update raised or lowered each."""
    from .view.inspect.command import inspect as look

    look(run, step=step, export=export, groups=groups, port=port, open_browser=browser)


tasks_app = typer.Typer(help="List the tasks, and what each needs. The subcommand check checks the task of a recipe.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context) -> None:
    """List the tasks, and what each needs. The subcommand check checks the task of a recipe."""
    if context.invoked_subcommand is not None:
        return
    from .tasks.command import list_tasks

    list_tasks()


@tasks_app.command("check")
def check_task(
    recipe: Recipe,
    settings: Settings = None,
    benchmarks: Annotated[
        str | None,
        typer.Option(
            help="Benchmarks to look for in the training problems, separated by commas. If not given: those that the recipe's "
            "section `decontamination` names.",
            metavar="NAME,...",
        ),
    ] = None,
    data: Data = None,
) -> None:
    """Check the task of a recipe: its answers against themselves, its training problems against benchmarks."""
    from .tasks.command import check_task as check

    check(recipe, settings or [], benchmarks, data or [])


@app.command()
def verify(
    file: Annotated[
        Path, typer.Argument(help="A .jsonl or .parquet file with responses and answers.", show_default=False)
    ],
    verifier: Annotated[
        str,
        typer.Option(
            "--verifier", metavar="NAME", help="numeric, exact, choice, math, code or python:module.function."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="An option of the verifier, e.g. timeout_s=10. May be repeated."
        ),
    ] = None,
    completion: Annotated[str | None, typer.Option(help="Column of the responses.", metavar="COLUMN")] = None,
    answer: Annotated[str | None, typer.Option(help="Column of the answers.", metavar="COLUMN")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Verifications at once. One a processor if not given.", min=1)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the rows with their verdicts to this JSONL file.")] = None,
) -> None:
    """Verify a file of responses: how many are right, wrong and unknown, and why those are unknown."""
    from .verify.command import verify_file

    verify_file(file, verifier, settings or [], completion=completion, answer=answer, workers=workers, output=output)


@app.command()
def compare(
    study: Annotated[
        Path,
        typer.Argument(help="A study (YAML), see docs/compare.md, or suite, see docs/suite.md.", show_default=False),
    ],
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            help="Run nothing. Write the page from the results.parquet beside the study file, or from the runs that ended by now.",
        ),
    ] = False,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Enter this one into the suite: a method by name, or your own advantage as python:module.function.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override a setting of --method, such as advantage.temperature=0.1."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the row of --method. Its own if not given.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Run the first so many seeds of the suite.", min=1)] = None,
    workers: Annotated[
        int | None, typer.Option(help="Runs at once when a method is entered. One a processor if not given.", min=1)
    ] = None,
) -> None:
    """Compare methods over seeds: tune each, run all, and write tables with intervals and a page. After Ctrl-C the same command resumes."""
    from rich.console import Console

    from .compare.command import compare_study
    from .compare.suite import entered_method, find_suite

    suite = find_suite(study)
    given = {"--set": settings, "--name": name, "--seeds": seeds, "--workers": workers, "--page": page and suite}
    if unused := [option for option, value in given.items() if value and method is None]:
        raise LampoError(f"{', '.join(unused)} is for a method that enters the suite: name it with --method.")
    if suite is None and method is not None:
        raise LampoError(
            f"--method enters a method into a suite, and {study} is a study. Name the method in its `methods`, or run: "
            f"lampo compare suite --method {method}"
        )
    if suite is None:
        compare_study(study, Console(), only_page=page)
        return
    from .compare.suite_command import enter, show_suite

    if method is None:
        show_suite(suite)
    else:
        entered = entered_method(method, settings or [], name)
        enter(suite, entered, Console(), seeds=seeds, workers=workers, only_page=page)


@app.command("signal")
def signal_command(
    recipe: Annotated[
        Path,
        typer.Argument(
            help="A YAML file, the name of a packaged recipe, such as quickstart, or a run directory.",
            show_default=False,
        ),
    ],
    settings: Settings = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Measure this one too: a method by name, or your own as python:module.function. May be repeated.",
        ),
    ] = None,
    groups: Annotated[int, typer.Option(help="Groups to measure. More of them make intervals narrower.", min=16)] = 200,
    false_positives: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE",
            help="Reward this share of the wrong answers. May be repeated. 0.2 and 0.4 if no errors are named.",
        ),
    ] = None,
    false_negatives: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE",
            help="Do not reward this share of the right answers. May be repeated. 0.2 if no errors are named.",
        ),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="Make no errors up: measure with the true verdicts alone.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder of page, tables and numbers; runs/NAME-signal if not given.")
    ] = None,
) -> None:
    """Measure which advantage estimator gives the policy the cleanest step, without training it."""
    from .signal.command import measure_signal

    if clean and (false_positives or false_negatives):
        raise LampoError(
            "--clean makes no errors up, and --false-positives and --false-negatives do: give one of them."
        )
    if not (clean or false_positives or false_negatives):
        false_positives, false_negatives = [0.2, 0.4], [0.2]
    measure_signal(
        recipe,
        settings or [],
        methods=method or [],
        num_groups=groups,
        false_positives=false_positives or [],
        false_negatives=false_negatives or [],
        output=output,
    )


@app.command()
def methods() -> None:
    """List the methods, with the settings that each brings: `method: NAME` in a recipe, or --set method=NAME."""
    from .config.command import list_methods

    list_methods()


@app.command()
def config(recipe: Recipe, settings: Settings = None) -> None:
    """Print every setting of a recipe with its meaning, type and default. The output is itself a recipe."""
    from .config.command import print_config

    print_config(recipe, settings or [])


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except LampoError as error:
        typer.secho(f"error: {printable(str(error))}", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in READERS | ENGINE:
            raise
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        reads = package in READERS and command in ("verify", "tasks")
        needs = f"Reading this data needs {package}" if reads else f"lampo {command} needs the native engine"
        typer.secho(f"error: {needs}. Install it with: pip install 'lampo[train]'", fg=typer.colors.RED, err=True)
        sys.exit(1)
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which is slow to import
            raise
        typer.secho(
            f"error: {error} If it was in sampling, lower sampling.rows_at_once. If it was in an update, lower "
            "training.tokens_per_microbatch or set model.gradient_checkpointing to true.",
            fg=typer.colors.RED,
            err=True,
        )
        sys.exit(1)
    except OSError as error:  # disk full, a folder taken away: not ours to mend, but no traceback either
        typer.secho(f"error: {reason(error)}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def main() -> None:
    """Entry point of the command `lampo`."""
    for stream in (sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")  # a terminal without the character
    with _plain_errors():
        app(prog_name="lampo")
