import json
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from lampo.store.files import MANIFEST, find_corruption, reason, write_file, write_folder


def fill(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(range(256)))
    (folder / "inner").mkdir()
    (folder / "inner" / "state").write_text("state")


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for data in (b"first", b"second, which is longer", b""):
        write_file(tmp_path / "file", data)
        assert (tmp_path / "file").read_bytes() == data
    assert names(tmp_path) == ["file"]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "file", b"before")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "file", b"after")
    with pytest.raises(OSError, match="No space") as raised:
        write_file(tmp_path / "new", b"after")
    assert reason(raised.value) == f"No space left on device ({tmp_path / 'new'})."
    assert (tmp_path / "file").read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_written_with_checksums(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", fill)
    assert names(tmp_path) == [
        "folder", "folder/checksums.json", "folder/inner", "folder/inner/state", "folder/weights",
    ]  # fmt: skip
    assert json.loads((tmp_path / "folder" / MANIFEST).read_text()).keys() == {"weights", "inner/state"}
    assert find_corruption(tmp_path / "folder") is None


def test_weights_that_do_not_fit_on_the_disk_are_an_error_of_the_disk(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise SafetensorError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_folder(tmp_path / "folder", fail)
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_folder_whose_filling_fails_is_absent(tmp_path: Path, error: type[BaseException]) -> None:
    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    with pytest.raises(error):
        write_folder(tmp_path / "folder", fail)
    assert names(tmp_path) == []

    write_folder(tmp_path / "folder", fill)
    with pytest.raises(error):
        write_folder(tmp_path / "folder", fail)
    assert find_corruption(tmp_path / "folder") is None  # the one before is still whole


def test_a_folder_whose_sync_fails_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_folder(tmp_path / "folder", fill)
    assert names(tmp_path) == []


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".folder.partial" / "rubbish").touch()
    write_folder(tmp_path / "folder", fill)
    assert names(tmp_path / "folder") == ["checksums.json", "inner", "inner/state", "weights"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_folder_replaces_the_one_before_whole(tmp_path: Path) -> None:
    def one_file(folder: Path) -> None:
        (folder / "other").touch()

    write_folder(tmp_path / "folder", fill)
    write_folder(tmp_path / "folder", one_file)
    assert names(tmp_path / "folder") == ["checksums.json", "other"]


def flip_a_bit(folder: Path) -> None:
    data = bytearray((folder / "weights").read_bytes())
    data[100] ^= 1
    (folder / "weights").write_bytes(data)


DAMAGES = {
    "a bit": (flip_a_bit, "weights does not match its checksum"),
    "cut short": (lambda folder: (folder / "weights").write_bytes(b"\0"), "weights does not match its checksum"),
    "emptied": (lambda folder: (folder / "weights").write_bytes(b""), "weights does not match its checksum"),
    "a file gone": (lambda folder: (folder / "inner" / "state").unlink(), "inner/state is missing"),
    "no checksums": (lambda folder: (folder / MANIFEST).unlink(), "checksums.json cannot be read"),
    "half the checksums": (
        lambda folder: (folder / MANIFEST).write_text('{"weights": "ab'),
        "checksums.json cannot be",
    ),
    "zeros for checksums": (
        lambda folder: (folder / MANIFEST).write_bytes(b"\0" * 99),
        "checksums.json cannot be read",
    ),
    "noise for checksums": (
        lambda folder: (folder / MANIFEST).write_bytes(b"\xff\xfe"),
        "checksums.json cannot be read",
    ),
}


@pytest.mark.parametrize("kind", list(DAMAGES))
def test_damage_is_found_and_named(tmp_path: Path, kind: str) -> None:
    write_folder(tmp_path / "folder", fill)
    spoil, says = DAMAGES[kind]
    spoil(tmp_path / "folder")
    wrong = find_corruption(tmp_path / "folder")
    assert wrong is not None
    assert wrong.startswith(says)


def test_files_added_later_are_no_damage(tmp_path: Path) -> None:
    write_folder(tmp_path / "folder", fill)
    (tmp_path / "folder" / "notes.txt").touch()
    assert find_corruption(tmp_path / "folder") is None


def test_something_that_is_no_folder_is_damaged(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "nowhere"):
        assert (find_corruption(tmp_path / name) or "").startswith("checksums.json cannot be read")
