"""`python -m vicuna.eval judge`: have a judge compare or grade answers, and keep every verdict.

After `answer`, before `report`. The path of one judgment:

1. `plan` makes the calls; those whose key is in the output file are done.
2. `endpoint` asks the judge, for a JSON verdict where the server can enforce one and for a marked line otherwise.
3. `verdict` reads the reply. If it cannot, the judge is asked once more; if it still cannot, the judgment is kept as
   unreadable: without a verdict, with both replies, counted in the report.
4. The judgment (`judgment`) is on the disk before the next call begins, one row for each order.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vicuna.conversation import Message
from vicuna.errors import UsageError, VicunaError
from vicuna.eval.answer import check_positive, load_answers
from vicuna.eval.ask.endpoint import OPENAI_URL, Endpoint, EndpointError, Reply, SchemaRefused
from vicuna.eval.ask.ledger import Ledger
from vicuna.eval.ask.runner import Outcome, run_calls
from vicuna.eval.ask.usage import Usage, total
from vicuna.eval.judging.judgment import Judgment
from vicuna.eval.judging.plan import Budget, Call, plan_calls, refuse_long_prompts
from vicuna.eval.judging.prompts import Mode
from vicuna.eval.questions import load_questions, select_questions
from vicuna.eval.verdict import read_pair, read_score
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import Progress, info, warning
from vicuna.io.terminal import write
from vicuna.material import material
from vicuna.options import option, parse

# Finish reasons of a reply that does not end where the judge ended.
CUT_SHORT = ("length", "content_filter")
# A longer reply that cannot be read is not shown to the judge again, which would be paid for.
MAX_REPLY_CHARS_SHOWN = 100_000
# Besides its key: what tells a judgment file from another one.
NEEDED_FIELDS = ("status", "mode", "judge", "order", "repeat", "usage")


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Options of `python -m vicuna.eval judge`."""

    mode: Mode = option(help="pair: which of two answers is better; single: a score from 1 to 10 for each")
    answers: tuple[Path, ...] = option(help="answer files; every model in them takes part")
    judge: str = option(help="name of the judge model at the server", aliases=("--judge-model",))
    base_url: str = option(OPENAI_URL, help="OpenAI-compatible server, up to /v1; its key is read from OPENAI_API_KEY")
    questions: Path | None = option(None, help="question file (JSON lines); the 80 shipped ones if not given")
    output: Path = option(help="judgment file (JSON lines), continued if it exists")
    categories: tuple[str, ...] = option((), help="only these categories")
    repeats: int = option(1, help="how often each comparison or score is asked for")
    both_orders: bool | None = option(None, help="pair: show each pair in both orders (done unless refused)")
    max_tokens: int = option(1024, help="longest reply of the judge, in tokens")
    temperature: float = option(0.0, help="sampling temperature of the judge")
    concurrency: int = option(8, help="requests at the same time", aliases=("--parallel",))
    timeout_seconds: float = option(300.0, help="longest wait for one reply")
    max_retries: int = option(6, help="attempts after the first when the server is busy or fails")
    max_usd: float | None = option(None, help="stop before the output file has cost more than this; needs a price")
    price_per_1m: tuple[float, ...] = option((), help="US dollars per million prompt tokens and completion tokens")


def main(argv: list[str] | None = None) -> int:
    """Judge the answers; 0 when every planned judgment is kept, readable or not."""
    description = "Have a judge compare or grade answers; run again, it judges only what is missing."
    options = parse(JudgeOptions, argv, prog="vicuna eval judge", description=description)
    judge_answers(options)
    return 0


def judge_answers(options: JudgeOptions) -> None:
    """Make the judgments that the output does not hold yet.

    Raises:
        UsageError: options that do not fit together.
        VicunaError: the files do not belong together; the budget is too small; judgments are missing at the end.
    """
    budget = _budget(options)
    questions = load_questions(options.questions or material("eval/questions.jsonl"))
    calls = plan_calls(
        options.mode,
        select_questions(questions, categories=options.categories),
        load_answers(options.answers),
        judge=options.judge,
        temperature=options.temperature,
        both_orders=options.both_orders is not False,
        repeats=options.repeats,
    )
    endpoint = Endpoint(
        options.judge, options.base_url, timeout_seconds=options.timeout_seconds, max_retries=options.max_retries
    )
    with Ledger(options.output, fields=NEEDED_FIELDS, from_row=_kept_judgment, light=Judgment.without_texts) as ledger:
        _refuse_mixture(calls, ledger)
        budget.spent_usd = sum(_cost_of_kept(judgment, budget) for judgment in ledger.records.values())
        missing = [call for call in calls if call.key not in ledger.records]
        refuse_long_prompts(missing)
        _announce(calls, missing, budget, options)
        if missing:
            outcome = asyncio.run(_judge_all(options, endpoint, ledger, missing, budget))
            outcome.require_complete(len(missing), "judgments")
        unreadable = sum(not ledger.records[call.key].is_readable for call in calls)
    write(f"{len(calls)} judgments by {options.judge} in {options.output}, {unreadable} of them unreadable")


def _budget(options: JudgeOptions) -> Budget:
    check_positive(options, "repeats", "max_tokens", "concurrency", "timeout_seconds")
    if options.mode == "single" and options.both_orders is not None:
        raise UsageError("--both-orders is for --mode pair; a single answer has no order")
    if options.price_per_1m and (len(options.price_per_1m) != 2 or not all(p >= 0 for p in options.price_per_1m)):
        raise UsageError("--price-per-1m takes two prices in US dollars: for prompt tokens and for completion tokens")
    if options.max_usd is not None and not (options.price_per_1m and options.max_usd > 0):
        raise UsageError(f"--max-usd {options.max_usd:g} must be above 0 and needs --price-per-1m PROMPT COMPLETION")
    price = (options.price_per_1m[0], options.price_per_1m[1]) if options.price_per_1m else None
    return Budget(options.max_usd, price, options.max_tokens)


def _kept_judgment(row: JsonObject) -> Judgment:
    """The judgment in a row of an earlier run.

    Raises:
        VicunaError: the row lacks something that every row of ours has.
    """
    judgment, *others = Judgment.from_row(row, "its row")
    if others or not {"prompt_tokens", "completion_tokens"} <= (row["usage"] or {}).keys():
        raise VicunaError(f"the judgment of question {judgment.question_id} has two orders or no token counts")
    return judgment


def _refuse_mixture(calls: Sequence[Call], ledger: Ledger[Judgment]) -> None:
    """See that the kept judgments and the calls belong together.

    Raises:
        VicunaError: the file holds the other mode, of which no common report is made, or judgments of other answers,
            questions or prompts under the same names, which would be averaged with the new ones.
    """
    for judgment in ledger.records.values():
        if calls and judgment.mode != calls[0].mode:
            raise VicunaError(f"{ledger.path}: holds judgments of --mode {judgment.mode}; name another --output")
    held = {judgment.slot: key for key, judgment in ledger.records.items()}
    for call in calls:
        if held.get(call.slot, call.key) != call.key:
            raise VicunaError(
                f"{ledger.path}: holds {call.judge}'s judgment of question {call.question.question_id} for "
                f"{' and '.join(call.models)} with another question, answer, prompt or temperature; "
                "name another --output"
            )


def _announce(calls: Sequence[Call], missing: Sequence[Call], budget: Budget, options: JudgeOptions) -> None:
    if kept := len(calls) - len(missing):
        info(f"{kept} of {len(calls)} judgments are already in {options.output}")
    if not missing:
        return
    num_with_reference = sum(call.prompt.uses_reference for call in missing)
    tokens = sum(call.estimated_prompt_tokens for call in missing)
    price = f", about ${budget.estimate(missing):.2f}" if budget.price_per_1m else ""
    info(f"{len(missing)} calls ({num_with_reference} with a reference), about {tokens:,} prompt tokens{price}")
    expected = budget.spent_usd + budget.estimate(missing)
    if budget.max_usd is not None and expected > budget.max_usd:
        raise VicunaError(
            f"the run is expected to reach ${expected:.2f}, above --max-usd {budget.max_usd:g}; raise it or take fewer "
            "--categories"
        )


async def _judge_all(
    options: JudgeOptions, endpoint: Endpoint, ledger: Ledger[Judgment], calls: Sequence[Call], budget: Budget
) -> Outcome:
    num_unreadable = 0
    with Progress(len(calls), description=f"{options.judge} judges", unit="judgments") as progress:

        async def judge(call: Call) -> None:
            nonlocal num_unreadable
            async with budget.reserve(call):
                judgment = await _judge_one(call, endpoint, budget)
            await ledger.append(judgment)
            num_unreadable += not judgment.is_readable
            progress.update(**({"unreadable": num_unreadable} if num_unreadable else {}))

        async with endpoint:
            outcome = await run_calls(calls, judge, concurrency=options.concurrency)
    if num_unreadable:
        warning(f"{num_unreadable} verdicts cannot be read; they are kept and counted as unscored")
    return outcome


async def _judge_one(call: Call, endpoint: Endpoint, budget: Budget) -> Judgment:
    """Ask, read, ask once more if need be: the judgment to keep."""
    dialogue = call.messages(structured=endpoint.takes_schema)
    replies: list[Reply] = []
    points: float | None = None
    cost = 0.0
    while points is None and len(replies) < 2:
        schema = call.prompt.schema if endpoint.takes_schema else None
        try:
            reply = await endpoint.chat(
                dialogue, max_tokens=budget.max_tokens, temperature=call.temperature, schema=schema
            )
        except SchemaRefused:
            dialogue = call.messages(structured=False)
            continue
        except EndpointError as error:
            if replies and error.is_refused:
                break  # with the first reply in it, the conversation is too long for the judge
            raise
        replies.append(reply)
        paid = _cost(reply, call, budget)
        budget.spent_usd += paid
        cost += paid
        points = _read_points(reply, call)
        if points is None:
            dialogue = _ask_again(call, endpoint, reply)
    return _judgment(call, dialogue, replies, points, cost if budget.price_per_1m else None)


def _read_points(reply: Reply, call: Call) -> float | None:
    """The verdict as points of the call's first model, or its score; None if it cannot be read."""
    if reply.finish_reason in CUT_SHORT:  # it may end inside a number: "8" of "8.5"
        return None
    if call.mode == "single":
        return read_score(reply.text)
    winner = read_pair(reply.text)
    if winner is None or winner == "tie":
        return None if winner is None else 0.5
    return 1.0 if (winner == "A") == (call.order == 1) else 0.0


def _cost(reply: Reply, call: Call, budget: Budget) -> float:
    """What a reply cost, in US dollars; the estimate and the worst case where the server does not count tokens."""
    prompt_tokens, completion_tokens = reply.usage.prompt_tokens, reply.usage.completion_tokens
    return budget.cost(
        call.estimated_prompt_tokens if prompt_tokens is None else prompt_tokens,
        budget.max_tokens if completion_tokens is None else completion_tokens,
    )


def _cost_of_kept(judgment: Judgment, budget: Budget) -> float:
    """What a kept judgment cost: as recorded, or at today's price."""
    usage = judgment.usage or Usage()
    if usage.usd is not None:
        return usage.usd
    return budget.cost(usage.prompt_tokens or 0, usage.completion_tokens or 0)


def _ask_again(call: Call, endpoint: Endpoint, unread: Reply) -> list[Message]:
    """The conversation that asks for the verdict once more; the prompt alone if no reply or an endless one came."""
    form = call.prompt.verdict_form(structured=endpoint.takes_schema)
    dialogue = call.messages(structured=endpoint.takes_schema)
    if not unread.text.strip() or len(unread.text) > MAX_REPLY_CHARS_SHOWN:
        return dialogue
    again = f"The verdict in this reply cannot be read. Give it once more, explaining in two sentences at most. {form}"
    return [*dialogue, Message(role="assistant", content=unread.text), Message(role="user", content=again)]


def _judgment(
    call: Call, dialogue: Sequence[Message], replies: Sequence[Reply], points: float | None, usd: float | None
) -> Judgment:
    """The judgment of a call, read from the last of its replies."""
    usage = Usage(
        total([reply.usage.prompt_tokens for reply in replies]),
        total([reply.usage.completion_tokens for reply in replies]),
        usd,
    )
    return Judgment(
        mode=call.mode,
        question_id=call.question.question_id,
        category=call.question.category,
        models=call.models,
        judge=call.judge,
        order=call.order,
        repeat=call.repeat,
        points=points,
        reply=replies[-1].text,
        user_prompt=dialogue[1].content,
        prompt_name=call.prompt.name,
        prompt_hash=call.prompt.hash,
        first_reply=replies[0].text if len(replies) > 1 else None,
        key=call.key,
        question_hash=call.question_hash,
        answers_hash=call.answers_hash,
        cut_answers=tuple(answer.model for answer in call.answers if answer.is_cut),
        usage=usage,
        timestamp=time.time(),
    )
