"""A `.vdelta` file while it is written: regions are appended, kept or written again."""

import hashlib
from pathlib import Path

from vicuna.weights.delta.regions import RegionFile
from vicuna.weights.files.unfinished import resumable_directory

PREAMBLE = b"preamble"


def write(file: RegionFile, data: bytes) -> tuple[int, int, str]:
    file.begin()
    for i in range(0, len(data), 3):
        file.write(data[i : i + 3])
    return file.end()


def test_regions_follow_each_other(tmp_path: Path) -> None:
    with resumable_directory(tmp_path / "out", {}) as unfinished, RegionFile(unfinished, "file", PREAMBLE) as file:
        assert write(file, b"first region") == (8, 12, hashlib.sha256(b"first region").hexdigest())
        assert write(file, b"")[:2] == (20, 0)
        assert write(file, b"third")[:2] == (20, 5)
        whole = file.sha256
    data = (tmp_path / "out" / "file").read_bytes()
    assert data == PREAMBLE + b"first regionthird"
    assert whole == hashlib.sha256(data).hexdigest()


def test_only_a_region_with_its_hash_is_kept(tmp_path: Path) -> None:
    with resumable_directory(tmp_path / "out", {}) as unfinished:
        path = unfinished.folder / "file"
        path.write_bytes(PREAMBLE + b"goodbad and more")
        with RegionFile(unfinished, "file", PREAMBLE) as file:
            assert file.reuse(8, 4, hashlib.sha256(b"good").hexdigest())
            assert not file.reuse(12, 3, hashlib.sha256(b"bed").hexdigest())
            assert not file.reuse(11, 3, hashlib.sha256(b"bad").hexdigest())
            write(file, b"new")
            whole = file.sha256
        assert path.read_bytes() == PREAMBLE + b"goodnew"
        assert whole == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_with_another_preamble_is_begun_again(tmp_path: Path) -> None:
    with resumable_directory(tmp_path / "out", {}) as unfinished:
        path = unfinished.folder / "file"
        path.write_bytes(b"older format, with data")
        with RegionFile(unfinished, "file", PREAMBLE) as file:
            assert file.position == len(PREAMBLE)
        assert path.read_bytes() == PREAMBLE
