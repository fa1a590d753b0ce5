"""Files are whole or not there."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vicuna.errors import VicunaError
from vicuna.io.files import atomic_directory, atomic_file, ensure_free_space, sha256_file, vicuna_home
from vicuna.io.jsonl import append_jsonl


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as file:
        file.write("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.txt"]


def test_no_overwrite(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(VicunaError, match="already exists"), atomic_file(tmp_path / "a", overwrite=False):
        pass


def test_a_kill_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    program = (
        "import os, sys; from vicuna.io.files import atomic_file, atomic_directory\n"
        "with atomic_file(sys.argv[1] + '/file') as file, atomic_directory(sys.argv[1] + '/folder') as folder:\n"
        "    file.write('half'); file.flush(); (folder / 'x').write_text('half'); os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "file").exists()
    assert not (tmp_path / "folder").exists()


def test_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with atomic_directory(target) as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "x").write_text("1")
        assert not target.exists()
    assert (target / "deep" / "x").read_text() == "1"


def test_a_filled_directory_is_refused_or_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("precious")
    with pytest.raises(VicunaError, match="not empty"), atomic_directory(target):
        pass
    assert (target / "mine").read_text() == "precious"
    with atomic_directory(target, overwrite=True) as folder:
        (folder / "new").write_text("1")
    assert [entry.name for entry in target.iterdir()] == ["new"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_a_refusal_between_the_two_renames_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "mine").write_text("precious")
    rename, calls = os.replace, []

    def interrupted(source: Path, destination: Path) -> None:
        calls.append(destination)
        if len(calls) == 2:
            raise KeyboardInterrupt
        rename(source, destination)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_directory(target, overwrite=True) as folder:
        (folder / "new").write_text("1")
    assert (target / "mine").read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_links_stay_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "disk" / "folder").mkdir(parents=True)
    (tmp_path / "folder").symlink_to("disk/folder")
    (tmp_path / "file").symlink_to("disk/file")
    with atomic_directory(tmp_path / "folder") as folder, atomic_file(tmp_path / "file") as file:
        (folder / "x").write_text("1")
        file.write("2")
    assert (tmp_path / "folder").is_symlink() and (tmp_path / "file").is_symlink()
    assert (tmp_path / "disk" / "folder" / "x").read_text() + (tmp_path / "disk" / "file").read_text() == "12"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with atomic_directory(Path(".")) as folder:
        (folder / "y").touch()
    assert (tmp_path / "here" / "y").exists()


def test_devices_and_folders_are_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, message in {"pipe": "not a plain file", "": "is a folder"}.items():
        with pytest.raises(VicunaError, match=message), atomic_file(tmp_path / name):
            pass
        with pytest.raises(VicunaError, match=message):
            append_jsonl(tmp_path / name, {})
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(VicunaError, match="is a file"), atomic_directory(tmp_path / "pipe", overwrite=True):
        pass


def test_a_full_disk_is_told_by_the_name_that_the_user_gave(tmp_path: Path) -> None:
    for manager in (atomic_file(tmp_path / "x"), atomic_directory(tmp_path / "x")):
        with pytest.raises(OSError) as caught, manager:
            raise OSError(errno.ENOSPC, "full")
        assert caught.value.filename == str(tmp_path / "x")
    with pytest.raises(OSError) as caught, atomic_directory(tmp_path / "x") as folder:
        (folder / "no" / "such").touch()
    assert caught.value.filename == str(tmp_path / "x")
    with pytest.raises(OSError) as caught, atomic_file(tmp_path / "x"):
        (tmp_path / "other" / "such").touch()
    assert caught.value.filename == str(tmp_path / "other" / "such")


def test_free_space(tmp_path: Path) -> None:
    ensure_free_space(tmp_path / "not" / "there", 1, "a byte")
    with pytest.raises(VicunaError, match=r"the model needs 1048576.00 GiB but .* GiB free"):
        ensure_free_space(tmp_path, 2**50, "the model")


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_file(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VICUNA_HOME", str(tmp_path))
    assert vicuna_home() == tmp_path
