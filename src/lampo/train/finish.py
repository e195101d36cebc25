"""The end of a run: the model to keep, the report, and what to do with them."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from ..config.schema import TrainConfig
from ..store.checkpoints import is_run, model_folder
from ..store.files import MANIFEST, write_folder
from ..store.metrics import nothing_trained, read_metrics, summary
from ..types import LampoError
from ..view.console import final_table
from ..view.report.report_page import write_report
from .model_card import CARD, front_matter, model_card
from .run import Run
from .soundness import read_manifest


def finish(run: Run) -> None:
    """Keep the model, write the report, and print what changed, where things are and what to type next.

    Raises:
        LampoError: the disk is full or cannot be written.
    """
    with run.alone():
        model = keep_model(run)
        metrics, report = read_metrics(run.path), run.path / "report.html"
        rows, told = summary(metrics), nothing_trained(metrics) if run.config.training.steps > 0 else ""
        try:
            write_report(run.path)
        except OSError as error:
            final_table(rows, next_steps(run, model, None), told)
            raise LampoError(
                f"Cannot write {report}: {error.strerror or error}. Make room, then: lampo train {run.path} --resume"
            ) from None
        final_table(rows, next_steps(run, model, report), told)


def keep_model(run: Run) -> Path | None:
    """The folder `model` of a finished run, whole or absent: weights, tokenizer, configuration and a filled model card.

    It is made of the run's last checkpoint, without what only training needs. None if the run has none: nothing was trained.

    Raises:
        LampoError: the disk is full or cannot be written.
    """
    checkpoint, target = run.weights, model_folder(run.path)
    if checkpoint is None or target.is_dir():  # a later checkpoint would have deleted it
        return target if target.is_dir() else None
    manifest, _ = read_manifest(run.path)
    card = model_card(run.path, run.config, read_metrics(run.path), manifest or {}, _base_card(run.config))

    def fill(partial: Path) -> None:
        for file in sorted(checkpoint.rglob("*")):
            name = file.relative_to(checkpoint)
            if file.is_file() and name.parts[0] not in ("training", MANIFEST, CARD):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(file, partial / name)
        (partial / CARD).write_text(card, encoding="utf-8")
        for file in filter(Path.is_file, partial.rglob("*")):
            file.chmod(0o644)  # safetensors writes for the owner alone

    try:
        write_folder(target, fill, checksums=False)  # a card is there to be edited
    except OSError as error:
        raise LampoError(
            f"Cannot write {target}: {error}. The checkpoint {checkpoint} holds the same weights. "
            f"Make room, then: lampo train {run.path} --resume"
        ) from None
    return target


def next_steps(run: Run, model: Path | None, report: Path | None) -> Sequence[tuple[str, str]]:
    """What the last lines of a run say, each with its label."""
    path, steps = shlex.quote(str(run.path)), run.config.training.steps
    lines = [("model", str(model))] if model is not None else []
    if report is not None:
        lines.append(("report", str(report)))
    if steps > 0:
        lines.append(("rollouts", f"lampo inspect {path}"))
    if model is not None:
        lines.append(("measure", f"lampo eval {path}"))
    if model is not None and steps > 0:
        lines.append(("train on", f"lampo train {path} --resume --set training.steps={2 * steps}"))
    return lines


def _link_or_copy(file: Path, target: Path) -> None:
    """Weights do not take their room twice: nobody writes into such a file, safetensors and we put a new one in its place."""
    if file.suffix == ".safetensors":
        try:
            os.link(file, target)
            return
        except OSError:  # a file system without hard links
            pass
    shutil.copyfile(file, target)


def _base_card(config: TrainConfig) -> dict[str, object]:
    """The front matter of the base model's card. Its own base counts only where it is a run: else the folder is the base."""
    if config.model.path is None:
        return {}
    folder = Path(config.model.path).expanduser()
    if is_run(folder):
        return front_matter(model_folder(folder) / CARD)
    return {key: value for key, value in front_matter(folder / CARD).items() if key != "base_model"}
