"""The folder of a Hugging Face data set: which of its files are which split.

Two layouts are known: what `Dataset.save_to_disk` and `DatasetDict.save_to_disk` write, and a snapshot of the hub, whose
files or folders carry the split's name.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ..types import LampoError

ENDINGS = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
"""Of files with rows."""

SPLIT_OF_WORD = {
    word: split
    for split, words in {
        "train": ("train", "training"),
        "test": ("test", "testing", "eval", "evaluation"),
        "validation": ("validation", "valid", "val", "dev"),
    }.items()
    for word in words
}
"""Words in the name of a file or folder that say which split it is. Those of the hub."""

_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


def split_files(folder: Path, wanted: Sequence[str] = ()) -> list[Path]:
    """The files of the first wanted split that the folder has, in order.

    A folder whose files name no split is taken whole, and so is one with a single split if none is asked for.

    Raises:
        LampoError: there is no file with rows, no such split, or several data sets have one.
    """
    found = _saved_splits(folder) or _named_splits(folder)
    if not found:
        raise LampoError(f"{folder} is a folder without a file of rows ({', '.join(ENDINGS)}). Check its path.")
    name = next((split for split in wanted if split in found), None)
    if name is None and len(found) == 1 and (not wanted or "" in found):
        (name,) = found
    if name is None:
        lacks = f"has no split {' or '.join(wanted)}" if wanted else "has several splits"
        raise LampoError(
            f"{folder} {lacks}. It has: {', '.join(split or 'files without a split' for split in found)}. "
            "Give a file, or the folder of one split."
        )
    files = found[name]
    if len({_kind(folder, file) for file in files}) > 1:
        several = ", ".join(str(file.relative_to(folder)) for file in files[:5])
        raise LampoError(
            f"{folder} holds several data sets ({several}). Give one of these files, or the folder of one."
        )
    return files


def _saved_splits(folder: Path) -> dict[str, list[Path]]:
    """What `save_to_disk` wrote. Nothing if it did not."""
    try:
        if (folder / "state.json").is_file():
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            return {"": [folder / file["filename"] for file in state["_data_files"]]}
        if (folder / "dataset_dict.json").is_file():
            names = json.loads((folder / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
            return {name: _saved_splits(folder / name).get("", []) for name in names}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise LampoError(f"{folder}: not a readable data set of save_to_disk ({error!r}). Save it again.") from None
    return {}


def _named_splits(folder: Path) -> dict[str, list[Path]]:
    """Files by the split that their name, or the nearest folder's above them, tells. "" where none does."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts) or file.name in _DESCRIPTIONS
        if file.suffix.lower() in ENDINGS and not hidden and file.is_file():
            found[next(filter(None, map(_split_of, reversed(parts))), "")].append(file)
    return dict(found)


def _split_of(part: str) -> str:
    """The split that a name stands for.

    >>> _split_of("train-00000-of-00002.parquet"), _split_of("dev"), _split_of("constraints.csv")
    ('train', 'validation', '')
    """
    return next((SPLIT_OF_WORD[word] for word in re.split("[^a-z]+", part.lower()) if word in SPLIT_OF_WORD), "")


def _kind(folder: Path, file: Path) -> tuple[str, ...]:
    """What the files of one split share: the folders above them that name no split, and their ending."""
    above = file.relative_to(folder).parts[:-1]
    return (*(part for part in above if not _split_of(part)), file.suffix.lower())
