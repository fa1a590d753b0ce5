"""How cost grows with size: CPU time and peak memory of every entry point at three sizes or more, and fitted exponents.

    .venv/bin/python scripts/bench/growth.py                    # all rows, some twenty minutes on one core
    .venv/bin/python scripts/bench/growth.py --quick            # smaller sizes, once each, some minutes on two cores
    .venv/bin/python scripts/bench/growth.py --only 'clean *'   # rows by name
    .venv/bin/python scripts/bench/growth.py --json FILE        # {"exponents": ..., "memory_exponents": ..., ...}

An exponent is the slope of a straight line through the logarithms: 1 is linear, 2 quadratic, 0 constant. Each size is
measured in a process of its own, forked when all modules are loaded and the input is made, so that neither counts. CPU
time is user and system time with that of children; memory is the highest resident size less that before the call. A row
over its bound is measured again, up to seven times, and judged by its medians. Exits with 1 if a row is over its bound
then. Linux only: the peak of a process's memory is reset through /proc.

The rows are in `growth_rows`, and `tests/test_growth.py` fails where an entry point has none.
"""

import argparse
import fnmatch
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from growth_rows import all_rows
from growth_rows.measuring import Costs, Fit, Row, measure_row


def main() -> int:
    """Measure the chosen rows, print a line for each, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="sizes a quarter as large, each measured once")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="the rows whose names match one of these")
    parser.add_argument("--list", action="store_true", help="print the names of the rows, and measure none")
    parser.add_argument("--jobs", type=int, help="rows measured at the same time (default: 1, with --quick 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    options = parser.parse_args()
    rows = [row for row in all_rows() if _is_chosen(row, options.only)]
    if options.only and not rows:
        parser.error(f"--only {' '.join(options.only)}: no row has such a name; --list prints them")
    if options.list:
        print("\n".join(row.name for row in rows))
        return 0
    if not sys.platform.startswith("linux"):
        print("error: growth.py needs Linux, to reset the peak of a process's memory", file=sys.stderr)
        return 1
    print(f"{'':50} {'time':>6} {'memory':>6}   at the largest size")
    fits: list[Fit] = []
    failures: list[str] = []
    jobs = options.jobs or (2 if options.quick else 1)
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        # Names, because a row holds functions, which cannot be sent; the forked processes have the same rows.
        measured = pool.map(_measure, [row.name for row in rows], [options.quick] * len(rows))
        for row, costs in zip(rows, measured, strict=True):
            if isinstance(costs, str):
                failures.append(costs)
                print(f"{row.name:50} FAILED", flush=True)
                continue
            fits.append(Fit(row, *costs))
            print(_line(fits[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(_figures(fits), indent=1) + "\n")
    over = [fit for fit in fits if not fit.is_within]
    print(f"{len(rows)} rows, {len(over)} over their bounds, {len(failures)} failed")
    for text in (*(fit.complaint for fit in over), *failures):
        print(f"  {text}")
    return 1 if over or failures else 0


def _measure(name: str, quick: bool) -> Costs | str:
    try:
        return measure_row(next(row for row in all_rows() if row.name == name), quick=quick)
    except RuntimeError as error:
        return str(error)


def _is_chosen(row: Row, patterns: list[str] | None) -> bool:
    return not patterns or any(fnmatch.fnmatchcase(row.name, pattern) for pattern in patterns)


def _line(fit: Fit) -> str:
    row, largest = fit.row, fit.sizes[-1]
    cost = f"{largest:,} {row.unit}: {fit.cpu_seconds[-1]:.2f} CPU-s, {fit.memory_bytes[-1] / 2**20:.0f} MiB"
    marks = ("" if fit.is_within else "  OVER") + (f"  ({row.why})" if row.why else "")
    return f"{row.name:50} {fit.exponent:6.2f} {fit.memory_exponent:6.2f}   {cost}{marks}"


def _figures(fits: list[Fit]) -> dict[str, object]:
    return {
        "exponents": {fit.row.name: round(fit.exponent, 3) for fit in fits},
        "memory_exponents": {fit.row.name: round(fit.memory_exponent, 3) for fit in fits},
        "rows": {
            fit.row.name: {
                "unit": fit.row.unit,
                "sizes": list(fit.sizes),
                "cpu_seconds": [round(value, 4) for value in fit.cpu_seconds],
                "memory_bytes": list(fit.memory_bytes),
                "bounds": [fit.row.time_bound, fit.row.memory_bound],
                "why": fit.row.why,
            }
            for fit in fits
        },
    }


if __name__ == "__main__":
    sys.exit(main())
