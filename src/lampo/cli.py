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

from .types import LampoError

app = typer.Typer(
    name="lampo",
    help="Train a reasoning model on problems whose answers can be checked, with LamPO (arXiv 2605.21235).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Recipe = Annotated[Path, typer.Argument(help="A recipe (YAML).", show_default=False)]
RecipeOrRun = Annotated[Path, typer.Argument(help="A recipe (YAML) or a run directory.", show_default=False)]
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
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the newest run of this recipe, from its latest checkpoint.")
    ] = False,
) -> None:
    """Train a policy: warm start, then reinforcement learning; ends with a report."""
    from .config.load import load_config
    from .process import prepare
    from .train.finish import finish
    from .train.loop import train as train_run
    from .train.run import Run
    from .train.session import Stopped
    from .view.console import Progress

    if resume:
        path = recipe if recipe.is_dir() else _newest(recipe)
        run, notes = Run.resume(path, settings or [])
        prepare(run.config)
    else:
        if recipe.is_dir():
            raise LampoError(f"{recipe} is a folder. To go on with a run: lampo train {recipe} --resume")
        config = load_config(recipe, settings or [])
        prepare(config)
        run, notes = Run.create(config), []
    with Progress(run.path.name) as progress:
        for note in notes:
            progress.note(note)
        try:
            train_run(run, progress)
        except Stopped as stopped:
            progress.note(f"{stopped} Go on with: lampo train {run.path} --resume")
            raise typer.Exit(130) from None
        except OSError as error:
            saved = f"What was saved before is whole; go on with: lampo train {run.path} --resume"
            raise LampoError(f"{_reason(error)} {saved}") from None
    finish(run)


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
    from .evaluation.command import compare_folders, measure_benchmarks, measure_heldout

    if compare is not None:
        typer.echo(compare_folders(*compare))
        return
    if model is None:
        raise LampoError("Say what to measure: lampo eval MODEL_OR_RUN --benchmarks aime24,math500, or --compare A B.")
    if not benchmarks:
        if backend != "native":
            raise LampoError(
                f"--backend {backend} is for --benchmarks; held-out problems are measured with the native sampler."
            )
        typer.echo(measure_heldout(Path(model), settings or [], problems))
        return
    typer.echo(
        measure_benchmarks(
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
            data=_by_name(data),
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
    from .view.inspect.source import open_source

    source = open_source(run, lambda text: typer.echo(text, err=True))
    if export is not None:
        from .view.inspect.export import export as write

        count = write(source, export, step=step, groups=groups)
        typer.echo(f"{count} groups in {export}")
        return
    from .view.inspect.server import serve

    serve(source, port=port, step=step, browser=browser)


tasks_app = typer.Typer(help="List the tasks, and what each needs; or check the task of a recipe.")
app.add_typer(tasks_app, name="tasks")


@tasks_app.callback(invoke_without_command=True)
def tasks(context: typer.Context) -> None:
    """List the tasks, and what each needs; or check the task of a recipe."""
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console
    from rich.table import Table

    from .tasks import TASKS

    table = Table("task", "what it is", "settings")
    for name, options in TASKS.items():
        table.add_row(
            name,
            (options.__doc__ or "").split("\n")[0],
            ", ".join(key for key in options.model_fields if key != "name"),
        )
    Console().print(table)


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
    from .config.load import load_config
    from .tasks.check import check_answers
    from .tasks.decontaminate import overlaps
    from .tasks.load import load_benchmark
    from .verify import VerifierPool, prepare_verifiers

    config = load_config(recipe, settings or [])
    task = config.task.load()
    problems = [*task.train, *task.heldout]
    typer.echo(f"{len(task.train):,} problems to train on, {len(task.heldout):,} to measure on")
    prepare_verifiers(problems, config.verifier)
    with VerifierPool() as pool:
        typer.echo(check_answers(problems, config.verifier, lambda triples: pool.verify_all(triples, progress=True)))
    ngram, files = config.decontamination.ngram, config.decontamination.data | _by_name(data)
    named = config.decontamination.benchmarks if benchmarks is None else benchmarks.split(",")
    for name in filter(None, map(str.strip, named)):
        heldout = load_benchmark(name, files)
        found = overlaps(task.train, heldout, ngram)
        typer.echo(
            f"{name}: {len(found):,} training problems share {ngram} words in a row with its {len(heldout):,} problems; "
            f"{sum(overlap.is_copy for overlap in found):,} hold more than half of one"
        )
        for overlap in found[:3]:
            typer.echo(f"  {overlap.train.id} holds {overlap.share:.0%} of {overlap.heldout.id}: {overlap.words!r}")
        if found and name not in config.decontamination.benchmarks:
            typer.echo(f"  To leave them out, add {name} to decontamination.benchmarks in the recipe.")


def _by_name(pairs: list[str] | None) -> dict[str, str]:
    """NAME=FILE pairs as a mapping."""
    files: dict[str, str] = {}
    for pair in pairs or []:
        name, separator, file = pair.partition("=")
        if not separator or not name or not file:
            raise LampoError(f"--data {pair}: write it as NAME=FILE, for example --data math500=test.jsonl.")
        files[name] = file
    return files


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
    import time

    from rich.console import Console
    from rich.table import Table

    from .config.load import parse_setting
    from .tasks.files import read_rows
    from .verify import verifier as verifier_of
    from .verify.score_file import score_rows, unknowns, write_verdicts

    chosen = verifier_of(verifier, **dict(parse_setting(setting) for setting in settings or []))
    rows = read_rows(str(file))
    begin = time.monotonic()
    verdicts = score_rows(rows, chosen, completion=completion, answer=answer, workers=workers)
    seconds = time.monotonic() - begin
    if output is not None:
        write_verdicts(output, rows, verdicts)
    counts = {status: sum(verdict.status == status for verdict in verdicts) for status in ("right", "wrong", "unknown")}
    known = counts["right"] + counts["wrong"]
    typer.echo(
        f"{len(rows):,} responses in {seconds:.1f} s: "
        + ", ".join(f"{status} {count:,}" for status, count in counts.items())
        + (f"; {counts['right'] / known:.1%} right of those verified" if known else "")
    )
    if counts["unknown"]:
        table = Table("why unknown", "responses", "first rows")
        for entry in unknowns(rows, verdicts):
            table.add_row(entry.reason, f"{entry.count:,}", ", ".join(map(str, entry.rows)))
        Console().print(table)


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

    try:
        compare_study(study, Console(), only_page=page)
    except KeyboardInterrupt:
        typer.echo(f"Stopped. Go on with: lampo compare {study}")
        raise typer.Exit(130) from None


@app.command()
def methods() -> None:
    """List the methods that `method: NAME` in a recipe, or --set method=NAME, puts in place, with their settings."""
    from rich.console import Console
    from rich.table import Table

    from .config.methods import METHODS

    table = Table("method", "paper", "arXiv", "settings")
    for name, method in METHODS.items():
        settings = [f"{section}: {values}" for section, values in method.settings.items()]
        table.add_row(name, method.paper, method.arxiv or "", "\n".join(settings).replace("'", ""))
    Console().print(table)


@app.command()
def config(recipe: Recipe, settings: Settings = None) -> None:
    """Print every setting of a recipe with its meaning, type and default; the output is itself a recipe."""
    from .config.explain import describe_config
    from .config.load import load_config

    typer.echo(describe_config(load_config(recipe, settings or [])))


def _newest(recipe: Path) -> Path:
    from .config.load import load_config
    from .train.run import find_run

    options = load_config(recipe).run
    path = find_run(Path(options.folder), options.name)
    if path is None:
        raise LampoError(
            f"There is no run {options.name!r} in {Path(options.folder).absolute()} to go on with. Start it without --resume."
        )
    return path


@contextmanager
def _plain_errors() -> Iterator[None]:
    try:
        yield
    except LampoError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
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
        typer.secho(f"error: {_reason(error)}", fg=typer.colors.RED, err=True)
        sys.exit(1)


def _reason(error: OSError) -> str:
    return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}."


def main() -> None:
    """Entry point of the command `lampo`."""
    with _plain_errors():
        app()
