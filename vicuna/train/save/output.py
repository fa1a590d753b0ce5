"""The output directory: new, or of the same run, and locked against any other process.

    DIR/run.json    the run's identity: model, data, template and the options that decide the weights

Before: `prepare`, which makes the identity. After: `checkpoint` and `export` write into the directory.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.io.jsonl import JsonObject, read_json, write_json
from vicuna.io.locks import lock_descriptor
from vicuna.train.options import TrainOptions, influential_options
from vicuna.train.watch.metrics import CHARTS, GENERATIONS, LOG

CHECKPOINTS = "checkpoints"
RUN = "run.json"
OUTPUTS = (CHECKPOINTS, "model", "adapter", LOG, GENERATIONS, "train_config.json", *CHARTS, "tensorboard", "wandb", RUN)
"""All that a run writes into its output directory; RUN last, as the last that is deleted with an old run."""


def check_output_directory(options: TrainOptions) -> None:
    """Check, before anything that takes long, that the output directory is new or holds a run.

    Raises:
        VicunaError: it is a file, it holds other files, or a run that must be neither resumed nor deleted.
    """
    directory = options.output_dir
    if directory.exists() and not directory.is_dir():
        raise VicunaError(f"--output-dir {directory} is a file; choose another name")
    if not directory.is_dir() or not set(directory.iterdir()) - set(leftovers(directory, OUTPUTS)):
        return
    if not (directory / RUN).is_file() or not _is_identity(read_json(directory / RUN)):
        raise VicunaError(f"--output-dir {directory} is not empty and not a training run; choose another directory")
    if options.overwrite_output_dir:
        if options.model.resolve().is_relative_to(directory.resolve()):
            raise VicunaError(f"--model {options.model} lies in --output-dir, which would be overwritten; move it")
    elif options.resume == "never" and _has_outcome(directory):
        raise VicunaError(
            f"--output-dir {directory} already holds a run; choose another directory, --resume auto, or "
            "--overwrite-output-dir"
        )


@contextmanager
def claim_output_directory(options: TrainOptions, identity: JsonObject) -> Iterator[None]:
    """Lock the output directory, which is new or holds the same run, against any other process.

    Raises:
        VicunaError: as `check_output_directory`; it is in use; it holds another run (the message says what differs).
    """
    directory = options.output_dir
    check_output_directory(options)
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        _lock(descriptor, directory)
        check_output_directory(options)  # another process may just have left it
        _start_or_resume(options, identity)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, directory: Path) -> None:
    try:
        is_locked = lock_descriptor(descriptor, wait=False)
    except BlockingIOError:
        raise VicunaError(f"--output-dir {directory} is in use by another run; wait for it or choose another") from None
    if not is_locked:
        log.warning(f"{directory} is on a file system without locks: see that no other run writes there")


def _start_or_resume(options: TrainOptions, identity: JsonObject) -> None:
    directory = options.output_dir
    for path in leftovers(directory, OUTPUTS):
        delete(path)
    if options.overwrite_output_dir:
        for name in OUTPUTS:
            delete(directory / name)
    if not _has_outcome(directory):
        delete(directory / RUN)  # of a run without a step: nothing is lost
    elif differences := _differences(read_json(directory / RUN), identity):
        raise VicunaError(
            f"--output-dir {directory} holds a run that differs: {'; '.join(differences)}; choose another "
            "directory or --overwrite-output-dir"
        )
    if not (directory / RUN).is_file():
        write_json(directory / RUN, identity, follows_link=False)


def earlier_rows_per_step(options: TrainOptions) -> int | None:
    """The rows of a step of the run that will be resumed, if its options have as many rows a rank as these."""
    path = options.output_dir / RUN
    if options.overwrite_output_dir or not path.is_file() or not _has_outcome(options.output_dir):
        return None
    saved = read_json(path)
    is_same = _is_identity(saved) and saved.get("rows_per_rank") == options.rows_per_rank
    return saved["rows_per_step"] if is_same and isinstance(saved.get("rows_per_step"), int) else None


def _is_identity(value: Any) -> bool:
    return isinstance(value, dict) and {"model", "data", "template"} <= value.keys()


def _has_outcome(directory: Path) -> bool:
    outcomes = [path for path in map(directory.joinpath, (CHECKPOINTS, "model", "adapter", LOG)) if path.exists()]
    return any(path.is_dir() or path.stat().st_size for path in outcomes)


def run_identity(
    options: TrainOptions, *, model: str, data: str, template: str, bf16: bool, rows_per_step: int
) -> JsonObject:
    """The identity of a run: two runs with the same one end with the same weights. `model` and `data` are fingerprints.

    A step has the same rows on any number of ranks, and any number of ranks can resume a run.
    """
    known = {"model": model, "data": data, "template": template, "bf16": bf16, "rows_per_step": rows_per_step}
    return {**known, "rows_per_rank": options.rows_per_rank, **influential_options(options)}


def _differences(saved: JsonObject, identity: JsonObject) -> list[str]:
    """What is different, in words; the data's hash is named only where nothing else explains it."""
    names = [name for name in identity if name != "rows_per_rank" and saved.get(name) != identity[name]]
    if "data" in names and {"model", "template", "max_length"} & set(names):
        names.remove("data")
    return [
        f"{name} is another" if name in ("model", "data") else f"{name} was {saved.get(name)}, is {identity[name]}"
        for name in names
    ]


def leftovers(directory: Path, names: Iterable[str]) -> list[Path]:
    """Temporary files and folders (see `vicuna.io.files`) of a process that was killed before it could rename them."""
    return [path for name in names for end in ("tmp", "old") for path in directory.glob(f".{name}.*.{end}")]


def delete(path: Path) -> None:
    """Delete a file or folder of ours; of a link, the link itself."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
