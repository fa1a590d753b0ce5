"""Checkpoints: everything a run needs to go on as if it had never stopped.

    DIR/run.json                       what run this is: model, data, template and options that decide the weights
    DIR/checkpoints/step-00000500/     model.safetensors (fp32), optimizer.safetensors, rng.safetensors, state.json,
                                       COMPLETE

A checkpoint is filled under a temporary name, synced to the disk and then renamed; COMPLETE, written last, lists the
size of every file, and a directory without it, or that it does not describe, is never resumed from. Nothing is pickled.
The place in the data is the step number (see `packing`).

Before: `model`. After: `loop` saves and restores.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from vicuna.errors import VicunaError
from vicuna.files import atomic_directory, atomic_file, ensure_free_space
from vicuna.jsonl import read_json, write_json
from vicuna.train.config import TrainOptions, influential_options
from vicuna.train.metrics import LOG
from vicuna.train.model import ConversationModel

CHECKPOINTS = "checkpoints"
RUN = "run.json"
COMPLETE = "COMPLETE"
OUTPUTS = (CHECKPOINTS, "model", LOG, "train_config.json", "loss.svg", RUN)
"""All that a run writes into its output directory, RUN last: it is the last to go when an old run is deleted."""


class SaveError(Exception):
    """A checkpoint could not be written; the ones before it are untouched."""


def check_output_directory(options: TrainOptions) -> None:
    """See, before anything that takes long, that the output directory is new or holds a run.

    Raises:
        VicunaError: it is a file, it holds other files, or a run that must be neither resumed nor deleted.
    """
    directory = options.output_dir
    if directory.exists() and not directory.is_dir():
        raise VicunaError(f"--output-dir {directory} is a file; choose another name")
    if not directory.is_dir() or not set(directory.iterdir()) - set(_leftovers(directory, OUTPUTS)):
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
def claim_output_directory(options: TrainOptions, identity: dict[str, Any]) -> Iterator[None]:
    """Hold the output directory, which is new or holds this very run, against any other process.

    Raises:
        VicunaError: as `check_output_directory`; it is in use; it holds another run (the message says what differs).
    """
    directory = options.output_dir
    check_output_directory(options)
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        check_output_directory(options)  # another process may just have left it
        _begin_or_go_on(options, identity)
        yield
    except BlockingIOError:
        raise VicunaError(f"--output-dir {directory} is in use by another run; wait for it or choose another") from None
    finally:
        os.close(descriptor)


def _begin_or_go_on(options: TrainOptions, identity: dict[str, Any]) -> None:
    directory = options.output_dir
    for path in _leftovers(directory, OUTPUTS):
        _delete(path)
    if options.overwrite_output_dir:
        for name in OUTPUTS:
            _delete(directory / name)
    if not _has_outcome(directory):
        _delete(directory / RUN)  # a run that never took a step: nothing is lost
    elif differences := _differences(read_json(directory / RUN), identity):
        raise VicunaError(
            f"--output-dir {directory} holds a run that differs: {'; '.join(differences)}; choose another "
            "directory or --overwrite-output-dir"
        )
    if not (directory / RUN).is_file():
        write_json(directory / RUN, identity)


def _is_identity(value: Any) -> bool:
    return isinstance(value, dict) and {"model", "data", "template"} <= value.keys()


def _has_outcome(directory: Path) -> bool:
    there = [path for path in (directory / CHECKPOINTS, directory / "model", directory / LOG) if path.exists()]
    return any(path.is_dir() or path.stat().st_size for path in there)


def run_identity(options: TrainOptions, *, model: str, data: str, template: str, bf16: bool) -> dict[str, Any]:
    """What makes two runs the same run. `model` and `data` are fingerprints."""
    return {"model": model, "data": data, "template": template, "bf16": bf16, **influential_options(options)}


def _differences(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """What is different, in words; the data's hash is named only where nothing else explains it."""
    names = [name for name in here if there.get(name) != here[name]]
    if "data" in names and {"model", "template", "max_length"} & set(names):
        names.remove("data")
    return [
        f"{name} is another" if name in ("model", "data") else f"{name} was {there.get(name)}, is {here[name]}"
        for name in names
    ]


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def checkpoint_path(output_dir: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return output_dir / CHECKPOINTS / f"step-{step:08d}"


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """The checkpoints that can be resumed from, oldest first."""
    return [path for path in sorted((output_dir / CHECKPOINTS).glob("step-*")) if _is_whole(path)]


def _is_whole(path: Path) -> bool:
    try:
        sizes: dict[str, int] = json.loads((path / COMPLETE).read_text("utf-8"))
        return all((path / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def save_checkpoint(
    path: Path, step: int, model: ConversationModel, optimizer: torch.optim.Optimizer, *, keep: int
) -> None:
    """Write the state after `step` steps, then delete all but the newest `keep` checkpoints beside it.

    Raises:
        SaveError: no room, or the disk refused; the earlier checkpoints are all still there.
    """
    weights = {name: weight.detach() for name, weight in model.named_weights().items()}
    moments = _optimizer_tensors(model, optimizer)
    size = sum(tensor.nbytes for tensor in (*weights.values(), *moments.values()))
    try:
        _delete_broken(path.parent)
        ensure_free_space(path, size, f"checkpoint {path.name}")
        with atomic_directory(path, overwrite=True) as temporary:
            save_file(weights, temporary / "model.safetensors")
            save_file(moments, temporary / "optimizer.safetensors")
            save_file(_rng_tensors(), temporary / "rng.safetensors")
            write_json(temporary / "state.json", {"step": step})
            _write_complete(temporary)
    except (OSError, SafetensorError, VicunaError) as error:
        raise SaveError(f"checkpoint {path} could not be saved: {' '.join(str(error).split())}") from error
    for old in whole_checkpoints(path.parent.parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)


def _write_complete(directory: Path) -> None:
    sizes = {file.name: file.stat().st_size for file in sorted(directory.iterdir())}
    with atomic_file(directory / COMPLETE) as file:
        json.dump(sizes, file)


def _delete_broken(directory: Path) -> None:
    """What a kill in the middle of a save, or of deleting an old checkpoint, left behind."""
    for path in _leftovers(directory, ["step-*"]):
        _delete(path)
    for path in directory.glob("step-*"):
        if not _is_whole(path):
            shutil.rmtree(path, ignore_errors=True)


def _leftovers(directory: Path, names: Iterable[str]) -> list[Path]:
    """Temporary files and folders (see `vicuna.files`) of a process that was killed before it could rename them."""
    return [path for name in names for end in ("tmp", "old") for path in directory.glob(f".{name}.*.{end}")]


def load_checkpoint(path: Path, model: ConversationModel, optimizer: torch.optim.Optimizer) -> int:
    """Restore model, optimizer and random state.

    Returns:
        The number of steps done, which is also the place in the data.

    Raises:
        VicunaError: the checkpoint is damaged or of another model.
    """
    try:
        _load_weights(path, model)
        _load_moments(path, model, optimizer)
        _restore_rng(load_file(path / "rng.safetensors"))
        return int(read_json(path / "state.json")["step"])
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise VicunaError(f"{path} is damaged ({error}); delete it to go on from the one before it") from None


@torch.no_grad()
def _load_weights(path: Path, model: ConversationModel) -> None:
    with safe_open(path / "model.safetensors", "pt") as file:
        for name, weight in model.named_weights().items():
            weight.copy_(file.get_tensor(name))


def _optimizer_tensors(model: ConversationModel, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as `exp_avg/model.norm.weight` and the like."""
    return {
        f"{kind}/{name}": value
        for name, weight in model.named_weights().items()
        for kind, value in optimizer.state.get(weight, {}).items()
    }


def _load_moments(path: Path, model: ConversationModel, optimizer: torch.optim.Optimizer) -> None:
    weights = model.named_weights()
    with safe_open(path / "optimizer.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118 (not a dict)
            kind, _, name = key.partition("/")
            value = file.get_tensor(key)
            optimizer.state[weights[name]][kind] = value.to(weights[name].device)


def _rng_tensors() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {f"cuda{number}": state for number, state in enumerate(_cuda_states())}


def _cuda_states() -> Iterable[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()


def _restore_rng(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            if (state := states.get(f"cuda{number}")) is not None:
                torch.cuda.set_rng_state(state, number)
