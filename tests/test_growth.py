"""`scripts/bench/growth.py` has a row for every entry point, and its exponents are those of what it measures."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "scripts" / "bench"
sys.path[:0] = [str(BENCH)]

from growth_rows import all_rows  # noqa: E402
from growth_rows.entry_points import NO_INPUT, entry_points  # noqa: E402
from growth_rows.measuring import QUICK, Fit, Row, Work, measure, measure_row, slope  # noqa: E402

linux = pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process's memory is reset through /proc")
ROW = Row("row", lambda _size, _room: lambda: None, (100, 400, 1_600), "things")


def test_every_entry_point_has_a_row() -> None:
    covered = {name for row in all_rows() for name in row.covers}
    missing = entry_points() - covered - NO_INPUT.keys()
    assert not missing, f"add a row to scripts/bench/growth_rows whose `covers` names {sorted(missing)}"
    assert not (stale := (covered | NO_INPUT.keys()) - entry_points()), f"no longer there: {sorted(stale)}"
    assert not covered & NO_INPUT.keys()


def test_rows_are_such_that_an_exponent_can_be_fitted() -> None:
    names = [row.name for row in all_rows()]
    assert len(set(names)) == len(names)
    for row in all_rows():
        assert len(row.sizes) >= 3, row.name
        assert all(3.5 < after / before <= 4 for before, after in zip(row.sizes, row.sizes[1:], strict=False)), row.name
        assert row.sizes[0] >= QUICK and all(size % QUICK == 0 for size in row.sizes), row.name
        assert row.why or (row.time_bound <= 1.15 and row.memory_bound <= 1.05), f"{row.name}: say why"


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_slope_is_the_power(power: float) -> None:
    sizes = (10, 40, 160, 640)
    assert slope(sizes, [3.0 * size**power for size in sizes]) == pytest.approx(power)


def test_what_is_over_its_bound_is_named() -> None:
    sizes = (100, 400, 1_600)
    good = Fit(ROW, sizes, (0.1, 0.4, 1.6), (1 << 20,) * 3)
    assert good.is_within and good.memory_exponent == pytest.approx(0)
    bad = Fit(ROW, sizes, (0.1, 1.6, 25.6), (16 << 20, 64 << 20, 256 << 20))
    assert not bad.is_within
    assert "row: time 2.00 of 1.15, memory 1.00 of 1.05 (100: 0.100 CPU-s" in bad.complaint
    tiny = Fit(ROW, sizes, (0.0, 0.0001, 0.001), (0, 1 << 10, 1 << 20))
    assert tiny.exponent == tiny.memory_exponent == pytest.approx(0), "cheaper than can be measured"


@linux
def test_memory_is_that_of_the_work_alone() -> None:
    def prepare(size: int, _room: Path) -> Work:
        given = bytearray(64 << 20)
        del given
        return lambda: bytearray(size << 20)

    row = Row("bytes", prepare, (8, 32, 128), "MiB")
    for size in row.sizes:
        _, memory = measure(row, size)
        assert size - 1 < memory / 2**20 < size + 4


@linux
def test_a_row_over_its_bound_is_measured_again(tmp_path: Path) -> None:
    def prepare(size: int, _room: Path) -> Work:
        with (tmp_path / "log").open("a") as file:
            file.write(f"{size}\n")
        return lambda: bytearray(size * size)

    sizes, _, memory = measure_row(Row("square", prepare, (2_000, 8_000, 32_000), "n"))
    assert Fit(ROW, sizes, (1.0, 1.0, 1.0), memory).memory_exponent > 1.7
    assert (tmp_path / "log").read_text().split().count("2000") == 7


@linux
def test_work_that_fails_says_where() -> None:
    def prepare(_size: int, _room: Path) -> Work:
        return lambda: 1 // 0

    with pytest.raises(RuntimeError, match=r"(?s)division at 5 n:.*ZeroDivisionError"):
        measure(Row("division", prepare, (5, 20, 80), "n"), 5)


def test_unknown_rows_are_refused() -> None:
    command = [sys.executable, str(BENCH / "growth.py"), "--only", "no such row"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--only no such row: no row has such a name" in done.stderr
