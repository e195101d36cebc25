"""The command line: lampo train | eval | inspect | compare | verify | tasks | methods | config. Commands import what they need, inside."""

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
        typer.Option(help="Processes of the engine on this machine, one a GPU. The same as run.processes.", min=1),
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
            help="With --resume: go on although this differs from the run's start, a setting or data. May be repeated.",
        ),
    ] = None,
) -> None:
    """Train a policy: warm start, then reinforcement learning; ends with a report."""
    from .train.command import train as run

    chosen = {"engine": engine, "run.processes": processes}
    given = [f"{key}={value}" for key, value in chosen.items() if value is not None]
    run(recipe, [*(settings or []), *given], resume=resume, dry_run=dry_run, accepted=accept or [])


@app.command("eval")
def evaluate_command(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A run, a recipe (YAML), or a model: a hub name, a folder, a .gguf file; with a URL as --backend, its name there.",
            show_default=False,
        ),
    ] = None,
    settings: Settings = None,
    benchmarks: Annotated[
        str,
        typer.Option(help="What to measure on, separated by commas: aime24, aime25, math500, gpqa_diamond, gsm8k, ..."),
    ] = "",
    samples: Annotated[int | None, typer.Option(help="Responses to each problem.", min=1)] = None,
    problems: Annotated[
        int | None, typer.Option(help="Problems of each, a fixed sample; all of them if not given.", min=1)
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Of the sampling; 0.6 for a model if not given.")] = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(help="Longest response; 4,096 for a model if not given.", min=1)
    ] = None,
    backend: Annotated[
        str,
        typer.Option(
            help="native, vllm (in this process), or the URL of a server with OpenAI's chat completions, such as http://localhost:8000/v1."
        ),
    ] = "native",
    concurrency: Annotated[int, typer.Option(help="Most requests to a server at once.", min=1)] = 16,
    requests_per_minute: Annotated[
        float | None, typer.Option(help="Most requests to a server in a minute.", min=0.1)
    ] = None,
    data: Data = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the records; the same folder goes on where it was.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the sampling.")] = 0,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Compare two folders that lampo eval wrote: the second minus the first."),
    ] = None,
) -> None:
    """Measure a model on benchmarks, or a run or recipe on its own held-out problems; or compare two evaluations."""
    from .evaluation.command import compare_folders, evaluate_model

    if compare is not None:
        typer.echo(compare_folders(*compare))
        return
    typer.echo(
        evaluate_model(
            model,
            [name for name in map(str.strip, benchmarks.split(",")) if name],
            settings or [],
            samples=samples,
            num_problems=problems,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            backend=backend,
            concurrency=concurrency,
            requests_per_minute=requests_per_minute,
            data=data or [],
            output=output,
            seed=seed,
        )
    )


@app.command()
def inspect(
    run: Annotated[
        Path, typer.Argument(help="A run directory, or a folder that lampo eval wrote.", show_default=False)
    ],
    step: Annotated[int | None, typer.Option(help="Begin at this step; with --export, only its groups.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write the most telling groups into one HTML file, instead of opening the browser."),
    ] = None,
    groups: Annotated[int, typer.Option(help="Most groups in that file.", min=1)] = 32,
    port: Annotated[int, typer.Option(help="Of the local server; any free one if 0.", min=0, max=65535)] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the browser, or only say where.")
    ] = True,
) -> None:
    """Look at rollouts: texts, rewards, tokens by their log-prob, and why each was pushed as it was."""
    from .view.inspect.command import inspect as look

    look(run, step=step, export=export, groups=groups, port=port, open_browser=browser)


tasks_app = typer.Typer(help="List the tasks, and what each needs; or check the task of a recipe.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context) -> None:
    """List the tasks, and what each needs; or check the task of a recipe."""
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
            help="Benchmarks to look for in the training problems, separated by commas; those that the recipe's "
            "section `decontamination` names if not given.",
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
        int | None, typer.Option(help="Verifications at once; one a processor if not given.", min=1)
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write the rows with their verdicts to this JSONL file.")] = None,
) -> None:
    """Verify a file of responses: how many are right, wrong and unknown, and why those are unknown."""
    from .verify.command import verify_file

    verify_file(file, verifier, settings or [], completion=completion, answer=answer, workers=workers, output=output)


@app.command()
def compare(
    study: Annotated[Path, typer.Argument(help="A study (YAML), see docs/compare.md.", show_default=False)],
    page: Annotated[
        bool,
        typer.Option(
            "--page",
            help="Run nothing: write the page from the results.parquet beside the study file, or from the runs that ended by now.",
        ),
    ] = False,
) -> None:
    """Compare methods over seeds: tune each, run all, and write tables with intervals and a page. Ctrl-C and the same command go on."""
    from rich.console import Console

    from .compare.command import compare_study

    compare_study(study, Console(), only_page=page)


@app.command()
def methods() -> None:
    """List the methods that `method: NAME` in a recipe, or --set method=NAME, puts in place, with their settings."""
    from .config.command import list_methods

    list_methods()


@app.command()
def config(recipe: Recipe, settings: Settings = None) -> None:
    """Print every setting of a recipe with its meaning, type and default; the output is itself a recipe."""
    from .config.command import print_config

    print_config(recipe, settings or [])


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except LampoError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
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
            f"error: {error} If it was in sampling, lower sampling.rows_at_once; if in an update, lower training.tokens_per_microbatch "
            "or set model.gradient_checkpointing to true.",
            fg=typer.colors.RED,
            err=True,
        )
        sys.exit(1)
    except OSError as error:  # disk full, a folder taken away: not ours to mend, but no traceback either
        typer.secho(f"error: {reason(error)}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def main() -> None:
    """Entry point of the command `lampo`."""
    with _plain_errors():
        app(prog_name="lampo")
