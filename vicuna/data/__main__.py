"""`python -m vicuna.data`: shared conversations in, training records out.

find the files (`sources`) -> cut them into batches, clean each (`batches`, in one of `engines`) -> combine the parts
(`reduce`) -> write the folder (`output`)
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from vicuna.conversation import get_template, needs_transformers
from vicuna.data.look import lists, merge, sample, show, stats, why
from vicuna.data.look.figures import Figures
from vicuna.data.look.report import report_page
from vicuna.data.options import EXECUTION_OPTIONS, DataOptions
from vicuna.data.pipeline import Pipeline, make_pipeline
from vicuna.data.read.sources import Source, find_sources
from vicuna.data.run import engines
from vicuna.data.run.batches import BATCH_BYTES, Batch, cut_batches, forget_pipeline
from vicuna.data.run.output import (
    MANIFEST,
    REPORT,
    REPORT_DATA,
    ROW_FILES,
    check_folder,
    describe_file,
    manifest_of,
    row_files,
)
from vicuna.data.run.reduce import Reducer
from vicuna.data.run.work import Work, work_folder, work_path
from vicuna.data.steps.phrases import LIST_STEPS, describe_lists, recorded_name
from vicuna.errors import VicunaError
from vicuna.io import log
from vicuna.io.files import atomic_directory
from vicuna.io.jsonl import JsonObject, write_json
from vicuna.io.machine import usable_cores
from vicuna.io.terminal import write_text
from vicuna.options import command, parse, to_dict
from vicuna.weights.resolve import resolve_model

VERBS = {
    "lists": lists.main,
    "why": why.main,
    "show": show.main,
    "stats": stats.main,
    "sample": sample.main,
    "merge": merge.main,
}
EXIT_SET_ASIDE = 4  # exit code: the result is there, but some records could not be used
DESCRIPTION = (
    "Clean shared conversations: HTML to Markdown, roles repaired, errors and duplicates out, long ones split."
)
EPILOG = """examples:
  vicuna data sharegpt.json --output-dir cleaned/
  vicuna data sharegpt.json identity.jsonl --output-dir cleaned/ \\
      --tokenizer base/ --template vicuna_v1.1 --max-tokens 2048 --held-out-ratio 0.02
  vicuna data pages/ 'more/*.jsonl.zst' --output-dir cleaned/ --workers 8     folders and patterns
  vicuna data lists refusals > own.txt     a shipped word list, to edit; without a name, which there are
  vicuna data sharegpt.json --output-dir cleaned/ --refusals own.txt     in its place; shipped own.txt: both
  vicuna data why ID --in cleaned/     what became of one record
  vicuna data show --rule refusal --in cleaned/     read records; each verb has its own --help
  vicuna data stats cleaned/           lengths and languages
  vicuna data sample cleaned/ --count 100 --output some.jsonl
  vicuna data merge cleaned/ more/ --output all.jsonl

A run that was stopped goes on where it was when the same command is given again. Exit codes: 0 all is well, 1 failed,
2 wrong flags, 4 the result is there, but some records were set aside (could not be read, or a step failed on them)."""


@command
def main(argv: list[str] | None = None) -> int:
    """Clean, write the result, print what became of the records."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in VERBS:
        return VERBS[arguments[0]](arguments[1:])
    options = parse(DataOptions, arguments, prog="vicuna data", description=DESCRIPTION, epilog=EPILOG)
    counts = clean(options)["counts"]
    write_text(summary(counts, options.output_dir))
    if not counts["records_out"]:
        raise VicunaError(f"no record is left to train on; {options.output_dir / REPORT} says why")
    if options.held_out_ratio and not counts["held_out"]:
        log.warning(f"--held-out-ratio {options.held_out_ratio} held nothing out; give more records or a larger ratio")
    if counts["set_aside"]:
        log.warning(
            f"records set aside: {counts['set_aside']:,} (unreadable, or a step failed on them); "
            f"{options.output_dir / 'dropped.jsonl'} has the place and reason of each (--strict stops at the first)"
        )
        return EXIT_SET_ASIDE
    return 0


def clean(options: DataOptions) -> JsonObject:
    """Clean, write the result and return its manifest.

    Raises:
        VicunaError: nothing could be read; with `strict`, a record was set aside.
    """
    forget_pipeline()
    options, tokenizer_name = _with_tokenizer_folder(options)
    pipeline = make_pipeline(options, is_runnable=False)
    word_lists = describe_lists(options)
    check_folder(options.output_dir, options.inputs)
    sources = find_sources(options.inputs, avoid=(options.output_dir, work_path(options.output_dir)))
    with work_folder(options, sources) as work:
        num_parts = _clean_batches(options, sources, work)
        if describe_lists(options) != word_lists:
            raise VicunaError("a word list was changed while records were cleaned by it; run again")
        recorded = _recorded(options, tokenizer_name)
        reducer = Reducer(work, num_parts, pipeline, options.near_duplicates)
        return _write_result(options, recorded, pipeline, sources, word_lists, reducer)


def _with_tokenizer_folder(options: DataOptions) -> tuple[DataOptions, str | None]:
    """The options with the tokenizer's folder, downloaded if need be, and the name that the manifest records."""
    if options.tokenizer is None or options.template is None:
        return options, None
    source = resolve_model(options.tokenizer, weights=False)
    name = f"{source.origin['id']}@{source.origin['revision']}" if source.origin else source.folder.resolve().name
    return replace(options, tokenizer=source.folder), name


def _clean_batches(options: DataOptions, sources: Sequence[Source], work: Work) -> int:
    """Clean the batches whose parts `work` does not have yet, and return the number of all parts."""
    total = sum(source.size_bytes for source in sources)
    progress = log.Progress(total, description="cleaning", unit="B")
    problems: dict[int, str] = {}  # by batch, its first record that was set aside
    num_parts = num_records = num_readable = 0

    def count(batch: Batch, head: JsonObject) -> None:
        nonlocal num_parts, num_records, num_readable
        num_parts = max(num_parts, batch.index + 1)
        num_records += head["num_records"]
        num_readable += head["num_readable"]
        if head["problem"] is not None:
            problems[batch.index] = head["problem"]
        progress.update(batch.size_bytes, records=f"{num_records:,}")

    def unfinished() -> Iterator[Batch]:
        for batch in cut_batches(sources):
            if options.strict and problems:
                return
            if (head := work.head(batch.index)) is not None:
                count(batch, head)
            else:
                yield batch

    with progress:
        for batch, part in _engine(options, total)(unfinished(), options):
            count(batch, work.write(batch.index, part))
    _check_unchanged(sources)
    first = problems[min(problems)] if problems else "there are none"
    if options.strict and problems:
        raise VicunaError(f"{first} (--strict stops here; without it the record is set aside)")
    if not num_readable:
        work.clear()
        raise VicunaError(f"no record can be read; the first: {first}" if problems else "the input holds no record")
    return num_parts


def _engine(options: DataOptions, total_bytes: int) -> engines.Engine:
    workers = options.workers or usable_cores()
    if options.engine == "ray":
        return engines.ray_tasks(workers)
    workers = max(1, min(workers, -(-total_bytes // BATCH_BYTES)))
    return engines.process_pool(workers) if workers > 1 or _would_load_torch(options) else engines.in_process


def _would_load_torch(options: DataOptions) -> bool:
    """Whether cleaning in this process would import torch without need; a worker of the pool never does."""
    if options.tokenizer is None or options.template is None or "torch" in sys.modules:
        return False
    return needs_transformers(get_template(options.template), options.tokenizer)


def _recorded(options: DataOptions, tokenizer_name: str | None) -> JsonObject:
    """The options that shape the result, for the manifest: names of files without their folders."""
    recorded = {name: value for name, value in to_dict(options).items() if name not in EXECUTION_OPTIONS}
    recorded["decontaminate"] = [path.name for path in options.decontaminate]
    recorded |= {name: [recorded_name(given) for given in getattr(options, name)] for name in LIST_STEPS}
    return recorded | {"tokenizer": tokenizer_name}


def _write_result(
    options: DataOptions,
    recorded: JsonObject,
    pipeline: Pipeline,
    sources: Sequence[Source],
    word_lists: JsonObject,
    reducer: Reducer,
) -> JsonObject:
    figures = Figures()
    names = [name for name in ROW_FILES if name != "held_out" or options.held_out_ratio]
    with atomic_directory(options.output_dir, overwrite=True) as folder:
        with row_files(folder, names) as files, log.Progress(None, description="writing", unit="records") as progress:
            for _ in reducer.write(files, figures):
                progress.update(kept=reducer.counts.kept)
        manifest = manifest_of(folder, reducer, sources, recorded) | {"lists": word_lists}
        write_json(folder / REPORT_DATA, figures.to_dict(manifest, pipeline.rules()))
        manifest["outputs"][REPORT_DATA] = describe_file(folder / REPORT_DATA)
        report_page(manifest, figures, pipeline.rules()).write(folder / REPORT)
        manifest["outputs"][REPORT] = describe_file(folder / REPORT)
        write_json(folder / MANIFEST, manifest)
    return manifest


def _check_unchanged(sources: Sequence[Source]) -> None:
    """Raise VicunaError if a file was changed while it was read: the result would belong to neither state of it."""
    for source in sources:
        status = source.path.stat()
        if (status.st_size, status.st_mtime_ns) != (source.size_bytes, source.modified_ns):
            raise VicunaError(f"{source.path} was changed while it was read; run again when it is finished")


def summary(counts: JsonObject, output_dir: Path) -> str:
    """The counts and the result's folder, in a few lines for people."""
    lines = [
        f"records in: {counts['records_in']:,}   kept: {counts['kept']:,}   dropped: {counts['dropped']:,}   "
        f"merged: {counts['merged']:,}",
        f"repaired: {counts['repaired']:,}   split: {counts['split']:,} into {counts['pieces']:,}",
    ]
    lines += [f"  {rule}: {count:,}" for rule, count in sorted(counts["rules"].items(), key=lambda item: -item[1])]
    tokens = f", {counts['tokens']:,} tokens" if counts["tokens"] else ""
    lines.append(f"records out: {counts['records_out']:,}   held out: {counts['held_out']:,}{tokens}")
    lines.append(f"result: {output_dir} (look at {output_dir / REPORT})")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(None))
