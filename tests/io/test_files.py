"""Files are whole or not there."""

import ast
import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import vicuna
from vicuna.errors import VicunaError
from vicuna.io.files import (
    OPEN_FLAGS,
    atomic_directory,
    atomic_file,
    checked_name,
    copy_in_folder,
    ensure_free_space,
    leads_elsewhere,
    make_folder,
    open_in_folder,
    sha256_file,
    vicuna_home,
    write_in_folder,
)
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


def test_a_file_of_ours_follows_no_link_and_empties_nothing(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for mode in OPEN_FLAGS:
        link = tmp_path / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(victim)
        with pytest.raises((VicunaError, FileExistsError)):
            open_in_folder(link, mode)
    write_in_folder(tmp_path / "link", b"ours")
    assert (tmp_path / "link").read_text() == "ours" and not (tmp_path / "link").is_symlink()
    for write in (
        lambda path: atomic_file(path, follows_link=False),
        lambda path: atomic_directory(path, overwrite=True, follows_link=False),
    ):
        link = tmp_path / "other"
        link.symlink_to(victim)
        with write(link) as made:
            assert made is not None
        assert not link.is_symlink()
        link.rmdir() if link.is_dir() else link.unlink()
    copy_in_folder(victim, tmp_path / "copy")
    assert (tmp_path / "copy").read_text() == victim.read_text() == "precious"


def test_what_a_file_of_ours_holds_stays_when_it_is_opened(tmp_path: Path) -> None:
    for mode in ("rb", "r+b", "ab", "a+b"):
        (tmp_path / "file").write_text("there")
        open_in_folder(tmp_path / "file", mode).close()
        assert (tmp_path / "file").read_text() == "there"


def test_a_pipe_or_a_folder_is_no_file_of_ours(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for mode in ("rb", "r+b", "ab"):
        with pytest.raises(VicunaError, match="not a plain file"):  # and nothing waits for a reader
            open_in_folder(tmp_path / "pipe", mode)
    with pytest.raises(VicunaError, match="not a plain file"):
        open_in_folder(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(VicunaError, match="is a link"):
        make_folder(tmp_path / "link")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "a/b",
        "/etc/passwd",
        "..\\a",
        "C:a",
        "a\0b",
        "a\nb",
        "a\u202eb",
        "a" * 256,
        " a",
        7,
        None,
        "é" * 128,
    ],
)
def test_names_that_are_refused(name: object) -> None:
    with pytest.raises(VicunaError, match="the index names the file"):
        checked_name(name, "the index")


def test_names_that_are_taken() -> None:
    for name in ("model-00001-of-00002.safetensors", "語.json", "a b.txt", ".hidden"):
        assert checked_name(name, "the index") == name
    assert checked_name("files/tokenizer.json", "the index", has_folders=True) == "files/tokenizer.json"
    for name in ("files/../x", "/x", "files//x", "files/"):
        with pytest.raises(VicunaError):
            checked_name(name, "the index", has_folders=True)


def test_links_out_of_a_folder_are_told_from_the_hubs_cache(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    blob = tmp_path / "models--a--b" / "blobs" / "ff"
    blob.parent.mkdir()
    blob.write_text("x")
    (snapshot / "config.json").symlink_to("../../blobs/ff")
    (snapshot / "LICENSE").symlink_to(tmp_path / "secret")
    assert not leads_elsewhere(snapshot / "config.json", snapshot)
    assert leads_elsewhere(snapshot / "LICENSE", snapshot)


# Who writes a file in another way than the doors of `vicuna.io`, and why that is safe.
NEW_FOLDER = "inside a folder that `atomic_directory` has just made, under a name that nobody knows"
OWN_WRITERS = {
    "weights/gguf/vocabulary/from_gguf.py": NEW_FOLDER,
    "train/batches/token_cache.py": NEW_FOLDER,
    "train/save/export.py": NEW_FOLDER,
    "train/save/saver.py": "renames a folder; a link under the new name is deleted first",
    "data/run/output.py": NEW_FOLDER,
    "weights/gguf/container.py": "opens a model's file for reading",
    "weights/files/checkpoint.py": "opens a model's files for reading",
    "train/save/output.py": "opens a folder, to lock it",
}
SHUTIL = {"copyfile", "copy", "copy2", "copytree", "move"}
WRITES = {"write_text", "write_bytes", "touch", "mkfifo", "symlink_to", *SHUTIL}


def _writes(path: Path) -> bool:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        if name in WRITES and owner not in ("", "terminal") and (name not in SHUTIL or owner == "shutil"):
            return True
        if called == "os.open":
            return True
        if name == "open" and owner != "stack":
            modes = [argument.value for argument in (*node.args, *(keyword.value for keyword in node.keywords))
                     if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]  # fmt: skip
            if any(set(mode) & set("wax+") and len(mode) <= 3 for mode in modes):
                return True
    return False


def test_no_module_writes_files_in_its_own_way() -> None:
    package = Path(vicuna.__file__).parent
    found = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if path.parent != package / "io" and _writes(path)
    }
    assert found == set(OWN_WRITERS), "write through vicuna.io.files"
