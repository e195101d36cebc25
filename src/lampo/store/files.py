"""Writing that survives a kill and a power cut: a file or folder is whole or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

MANIFEST = "checksums.json"


def write_file(path: Path, data: bytes) -> None:
    """Write beside the file, sync, rename.

    Raises:
        OSError: with the name of the file, which a full disk does not tell. Nothing is left beside it.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        error.filename = str(path)
        with suppress(OSError):
            partial.unlink()
        raise
    sync_folder(path.parent)


def write_folder(path: Path, fill: Callable[[Path], None], *, checksums: bool = True) -> None:
    """Have `fill` write a folder of another name, add checksums of its files, sync and rename. Nothing is left if it fails.

    Args:
        path: the folder.
        fill: writes the files into a folder that it is given.
        checksums: without them, files may be edited later, and `find_corruption` cannot judge the folder.

    Raises:
        OSError: the disk is full or cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        fill(partial)
        if checksums:
            names = sorted(str(file.relative_to(partial)) for file in partial.rglob("*") if file.is_file())
            (partial / MANIFEST).write_text(json.dumps({name: _digest(partial / name) for name in names}, indent=1))
        for file in partial.rglob("*"):
            sync_folder(file)
        sync_folder(partial)
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
        sync_folder(path.parent)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        # how safetensors tells of a full disk; its own class would have to be imported, and it is not in the light core
        if type(error).__name__ == "SafetensorError":
            raise OSError(str(error)) from error
        raise


def find_corruption(path: Path) -> str | None:
    """What is wrong with a folder that `write_folder` made, or None."""
    try:
        expected: dict[str, str] = json.loads((path / MANIFEST).read_text())
        if not isinstance(expected, dict) or not expected:
            return f"{MANIFEST} names no files"
        for name, digest in expected.items():
            if not (path / name).is_file():
                return f"{name} is missing"
            if _digest(path / name) != digest:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, RecursionError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    return None


def reason(error: OSError) -> str:
    """What the operating system says, as a sentence, with the file where it names one."""
    return f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}."


def dated(file: Path | os.DirEntry[str]) -> tuple[int, ...]:
    """What changes when a file does. Empty where it cannot be asked."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def sync_folder(path: Path) -> None:
    """Have the disk hold what was written to a file or folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
