"""The cleaning steps in their order, and the function that takes records through them.

    read -> html -> privacy -> noise -> roles -> empty -> errors -> refusals -> blocked -> quality -> language
         -> decontaminate -> dedup -> split -> held out or not

Every step but `dedup` looks at one record alone, so any process may run it (`batches`). `dedup` compares all records:
here only the keys of each record are made; `reduce` compares them.
"""

import contextlib
import functools
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vicuna.conversation import Message, check_tokenizer, get_template, load_token_counter
from vicuna.data.options import SHIPPED, DataOptions
from vicuna.data.privacy.step import privacy_step
from vicuna.data.read.record import Malformed
from vicuna.data.step_kinds import Drop, Finding, Keep, Outcome, Record, Split, Step
from vicuna.data.steps import dedup
from vicuna.data.steps.answers import EMPTY_STEP, blocked_step, errors_step, refusals_step
from vicuna.data.steps.decontaminate import decontamination_step, shipped_questions
from vicuna.data.steps.dedup import Keys
from vicuna.data.steps.language import language_step
from vicuna.data.steps.noise import noise_step
from vicuna.data.steps.page_turns import HTML_STEP
from vicuna.data.steps.phrases import LIST_STEPS, chosen_phrases, shipped_phrases
from vicuna.data.steps.quality import quality_step
from vicuna.data.steps.roles import ROLES_STEP
from vicuna.data.steps.split import count_rounds, split_step
from vicuna.errors import UsageError, nearest

READ_RULES = {"malformed": "the record could not be read; the evidence says where and why"}
CRASHED = "crashed"
CRASHED_RULE = {CRASHED: "a step failed on the record; the evidence has its error, and where the record stands"}
SET_ASIDE_RULES = (*READ_RULES, CRASHED)  # dropped by a failure, not by a decision
DEDUP, SPLIT = "dedup", "split"
DEDUP_VERSION = 2
# Published ShareGPT collections are cut already: `QWJhYvA_0` and `QWJhYvA_17` are pieces of one conversation.
SHAREGPT_PIECE = re.compile(r"([A-Za-z0-9]{7})_\d+")


@dataclass(frozen=True)
class Pipeline:
    """The steps of one cleaning.

    Attributes:
        before, after: the steps on both sides of `dedup`.
        has_dedup: whether `dedup` is one of the steps.
        finds_near_duplicates: whether `dedup` compares words too, and not only whole texts.
        held_out_ratio: the part of the conversations that goes into held_out.jsonl.
    """

    before: tuple[Step, ...]
    has_dedup: bool
    finds_near_duplicates: bool
    after: tuple[Step, ...]
    held_out_ratio: float

    def versions(self) -> list[tuple[str, int]]:
        """Every step's name and version, in order; reading is the first."""
        merging = [(DEDUP, DEDUP_VERSION)] if self.has_dedup else []
        before, after = ([(step.name, step.version) for step in steps] for steps in (self.before, self.after))
        return [("read", 1), *before, *merging, *after]

    def rules(self) -> Mapping[str, str]:
        """What each rule means to a reader of the report."""
        found = READ_RULES | CRASHED_RULE | (dedup.RULES if self.has_dedup else {})
        for step in (*self.before, *self.after):
            found |= step.rules
        return found


@dataclass
class Trace:
    """What the steps made of one record.

    Attributes:
        is_read: whether the record could be read at all.
        repairs, end: findings of the steps before `dedup`, each with its step's name; `end` is the one that the record
            was dropped for, if it was.
        keys: what `dedup` compares the record by; None if it was dropped before, or there is no `dedup`.
        repairs_after, end_after: the same of the steps after `dedup`. They count only if the record is not merged.
        pieces: the record as the steps so far left it: one, several after `split`, none if it was dropped.
        rounds: how many came into `split`, came out of it, and were left out.
    """

    id: str
    source: str
    is_read: bool = True
    repairs: list[tuple[str, Finding]] = field(default_factory=list)
    end: tuple[str, Finding] | None = None
    keys: Keys | None = None
    repairs_after: list[tuple[str, Finding]] = field(default_factory=list)
    end_after: tuple[str, Finding] | None = None
    pieces: tuple[Record, ...] = ()
    rounds: tuple[int, int, int] = (0, 0, 0)


def _step_makers(options: DataOptions, is_runnable: bool) -> dict[str, Callable[[], Step] | None]:
    """By name, in order, the function that makes each step; None for `dedup`, which is not a `Step`."""
    makers: dict[str, Callable[[], Step] | None] = {"html": lambda: HTML_STEP}
    if (mode := options.pii) != "keep":
        makers["privacy"] = functools.partial(privacy_step, mode)

    def phrases(name: str) -> tuple[str, ...]:
        return chosen_phrases(name, options)

    makers["noise"] = lambda: noise_step(phrases("leftovers"))
    makers["roles"] = lambda: ROLES_STEP
    makers["empty"] = lambda: EMPTY_STEP
    makers["errors"] = lambda: errors_step(phrases("error_messages"), options.max_error_characters)
    makers["refusals"] = lambda: refusals_step(
        phrases("refusals"), phrases("refusal_turns"), options.max_refusal_characters
    )
    makers["blocked"] = lambda: blocked_step(phrases("blocked"), shipped_phrases("blocked"))
    makers["quality"] = lambda: quality_step(options.repeated_part)
    makers["language"] = lambda: language_step(
        options.languages, options.skip_languages, options.min_language_confidence
    )
    makers["decontaminate"] = lambda: decontamination_step((shipped_questions(), *options.decontaminate))
    makers[DEDUP] = None
    if options.tokenizer is not None:
        makers[SPLIT] = lambda: _split_step(options, is_runnable)
    return makers


def make_pipeline(options: DataOptions, *, is_runnable: bool = True) -> Pipeline:
    """The steps that the options ask for.

    Args:
        is_runnable: whether records will go through it. If not, the tokenizer is checked but not loaded.

    Raises:
        UsageError: options that do not go together, or an unknown step.
        VicunaError: an unknown template, or no tokenizer in its folder.
    """
    _check(options)
    makers = _step_makers(options, is_runnable)
    for flag, given in (("--only", options.only), ("--skip", options.skip)):
        for name in given:
            if name == SPLIT and name not in makers:
                raise UsageError(f"{flag} {SPLIT}: splitting needs --tokenizer and --template, to count tokens")
            if name not in makers:
                raise UsageError(f"{flag} {name}: no such step; {nearest(name, makers)}")
    chosen = [name for name in makers if name in (options.only or makers) and name not in options.skip]
    if not chosen:
        raise UsageError("--only and --skip leave no step to run; drop one of them")
    names = list(makers)
    for name, step in LIST_STEPS.items():
        if step not in chosen and getattr(options, name) != (SHIPPED,):
            raise UsageError(f"--{name.replace('_', '-')} needs the step {step}; do not leave it out")
    made = {name: make() for name in chosen if (make := makers[name])}
    return Pipeline(
        before=tuple(step for name, step in made.items() if names.index(name) < names.index(DEDUP)),
        has_dedup=DEDUP in chosen,
        finds_near_duplicates=options.near_duplicates > 0,
        after=tuple(step for name, step in made.items() if names.index(name) > names.index(DEDUP)),
        held_out_ratio=options.held_out_ratio,
    )


def _check(options: DataOptions) -> None:
    if options.tokenizer is None or options.template is None:
        for name in ("tokenizer", "template", "max_tokens"):
            if getattr(options, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')} needs both --tokenizer and --template, to count tokens")
    if options.max_tokens is not None and options.max_tokens < 1:
        raise UsageError(f"--max-tokens {options.max_tokens}: give a positive number of tokens")
    if "language" in options.skip and (options.languages or options.skip_languages):
        raise UsageError("--languages and --skip-languages need the step language; do not skip it")
    if options.carry_over < 0:
        raise UsageError(f"--carry-over {options.carry_over}: give a number of rounds, or 0 for none")
    if not 0 <= options.near_duplicates <= 1:
        raise UsageError(f"--near-duplicates {options.near_duplicates}: give a number from 0 to 1")
    if not 0 < options.repeated_part <= 1:
        raise UsageError(f"--repeated-part {options.repeated_part}: give a number above 0, up to 1")
    if not 0 <= options.min_language_confidence <= 1:
        raise UsageError(f"--min-language-confidence {options.min_language_confidence}: give a number from 0 to 1")
    if not 0 <= options.held_out_ratio < 1:
        raise UsageError(f"--held-out-ratio {options.held_out_ratio}: give a number from 0 to below 1")
    if options.workers is not None and options.workers < 1:
        raise UsageError(f"--workers {options.workers}: give a positive number of processes")


def _split_step(options: DataOptions, is_runnable: bool) -> Step:
    assert options.template is not None and options.tokenizer is not None
    template = get_template(options.template)
    check_tokenizer(options.tokenizer)
    how = (options.max_tokens, options.over_long, options.carry_over)
    if not is_runnable:
        return split_step(_no_counter, *how)
    counter = load_token_counter(template, options.tokenizer)
    return replace(
        split_step(counter, *how), prepare=lambda records: counter.prepare(record.messages for record in records)
    )


def _no_counter(_: Sequence[Message]) -> int:
    raise AssertionError("this pipeline is not runnable")


def clean_records(items: Sequence[tuple[Record | Malformed, str]], pipeline: Pipeline) -> list[Trace]:
    """Take records through all steps: all records through one step, then all through the next.

    Not record by record, because each step has words, tables or a model of its own, which then stay in the processor's
    cache while they are used: 5.5 CPU-s instead of 8.1 for 2,072 conversations.

    Args:
        items: each with its place in its file, for the evidence if a step fails on it.
    """
    traces = [Trace(item.id, item.source) for item, _ in items]
    remaining = []  # those that no step has dropped
    for trace, (item, place) in zip(traces, items, strict=True):
        if isinstance(item, Malformed):
            trace.is_read = False
            trace.end = ("read", Finding("malformed", item.reason))
        else:
            trace.pieces = (item,)
            remaining.append((trace, place))
    for step in pipeline.before:
        _prepare(step, remaining)
        for trace, place in remaining:
            _run_before_dedup(step, trace, place)
        remaining = _without_dropped(remaining)
    if pipeline.has_dedup:
        for trace, place in remaining:
            _make_keys(trace, place, pipeline.finds_near_duplicates)
        remaining = _without_dropped(remaining)
    for step in pipeline.after:
        _prepare(step, remaining)
        for trace, place in remaining:
            _run_after_dedup(step, trace, place)
        remaining = _without_dropped(remaining)
    return traces


def _without_dropped(traces: Sequence[tuple[Trace, str]]) -> list[tuple[Trace, str]]:
    return [(trace, place) for trace, place in traces if trace.pieces]


def _prepare(step: Step, remaining: Sequence[tuple[Trace, str]]) -> None:
    with contextlib.suppress(Exception):  # `run` will fail again, and then it is known on which record
        step.prepare([record for trace, _ in remaining for record in trace.pieces])


def _run_before_dedup(step: Step, trace: Trace, place: str) -> None:
    (record,) = trace.pieces
    outcome = _run(step, record, place)
    trace.repairs += _repairs(step, outcome)
    if isinstance(outcome, Drop):
        trace.end, trace.pieces = (step.name, outcome.finding), ()
        return
    assert isinstance(outcome, Keep), f"{step.name} gave {type(outcome).__name__}"
    trace.pieces = (outcome.record,)


def _make_keys(trace: Trace, place: str, needs_signature: bool) -> None:
    (record,) = trace.pieces
    try:
        trace.keys = dedup.make_keys(record, needs_signature=needs_signature)
    except Exception as error:
        trace.end, trace.pieces = (DEDUP, _crash(error, place)), ()


def _run_after_dedup(step: Step, trace: Trace, place: str) -> None:
    (record,) = trace.pieces  # only the last step splits
    outcome = _run(step, record, place)
    trace.repairs_after += _repairs(step, outcome)
    if step.name == SPLIT:
        trace.rounds = count_rounds(record, outcome)
    if isinstance(outcome, Drop):
        trace.end_after, trace.pieces = (step.name, outcome.finding), ()
        return
    assert isinstance(outcome, Keep | Split), f"{step.name} gave {type(outcome).__name__}"
    trace.pieces = outcome.records if isinstance(outcome, Split) else (outcome.record,)


def _run(step: Step, record: Record, place: str) -> Outcome:
    """The step's outcome; if it fails in any way, only this record is dropped."""
    try:
        return step.run(record)
    except Exception as error:
        return Drop(_crash(error, place))


def _crash(error: Exception, place: str) -> Finding:
    message = " ".join(str(error).split())
    return Finding(CRASHED, f"{place}: {type(error).__name__}: {message}"[:500])


def _repairs(step: Step, outcome: Outcome) -> list[tuple[str, Finding]]:
    return [(step.name, finding) for finding in outcome.repairs]


def is_held_out(original_id: str, ratio: float) -> bool:
    """Whether a conversation is held out: decided by the hash of its id, independently of the other records."""
    conversation = conversation_of(original_id).encode("utf-8")
    value = int.from_bytes(hashlib.sha256(b"held out:" + conversation).digest()[:8], "big")
    return value < ratio * 2**64


def conversation_of(original_id: str) -> str:
    """The id that all pieces of a conversation share, also where the collection was published in pieces."""
    piece = SHAREGPT_PIECE.fullmatch(original_id)
    return piece[1] if piece else original_id
