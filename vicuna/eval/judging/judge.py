"""`python -m vicuna.eval judge`: have a judge compare or grade answers, and keep every verdict.

After `answer`, before `report`. The path of one judgment:

1. `plan` makes the calls; those whose key is in the output file are done.
2. `endpoint` asks the judge, for a JSON verdict where the server can enforce one and for a marked line otherwise.
3. `verdict` reads the reply. If it cannot, the judge is asked once more; if it still cannot, the row is kept as
   unreadable: without a verdict, with both replies, counted in the report.
4. The row is on the disk before the next call begins. Its fields are MT-bench's, one row for each order (`g1_...` for
   the first order, `g2_...` for the swapped one).
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vicuna.conversation import Message
from vicuna.errors import UsageError, VicunaError
from vicuna.eval.answer import check_positive, load_answers
from vicuna.eval.ask.endpoint import OPENAI_URL, Endpoint, EndpointError, Reply, SchemaRefused
from vicuna.eval.ask.ledger import Ledger
from vicuna.eval.ask.runner import Outcome, run_calls
from vicuna.eval.judging.plan import Budget, Call, plan_calls
from vicuna.eval.judging.prompts import Mode
from vicuna.eval.questions import load_questions, select_questions
from vicuna.eval.verdict import read_pair, read_score
from vicuna.io.jsonl import JsonObject
from vicuna.io.log import Progress, info, warning
from vicuna.material import material
from vicuna.options import option, parse

# Finish reasons of a reply that does not end where the judge ended.
CUT_SHORT = ("length", "content_filter")


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
    options = parse(JudgeOptions, argv, prog="python -m vicuna.eval judge", description=description)
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
    with Ledger(options.output, fields=("status", "mode", "judge", "order", "repeat", "usage")) as ledger:
        try:
            _refuse_mixture(calls, ledger)
            budget.spent_usd = sum(_row_cost(row, budget) for row in ledger.rows.values())
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise VicunaError(
                f"{options.output}: a row was changed by hand ({type(error).__name__}: {error}); name another --output"
            ) from None
        missing = [call for call in calls if call.key not in ledger.rows]
        _announce(calls, missing, budget, options)
        if missing:
            outcome = asyncio.run(_judge_all(options, endpoint, ledger, missing, budget))
            outcome.require_complete(len(missing), "judgments")
        unreadable = sum(ledger.rows[call.key]["status"] == "unreadable" for call in calls)
    print(f"{len(calls)} judgments by {options.judge} in {options.output}, {unreadable} of them unreadable")


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


def _refuse_mixture(calls: Sequence[Call], ledger: Ledger) -> None:
    """Old judgments of other answers, questions or prompts under the same names would be averaged with the new ones,
    and of pairs and single answers in one file no report is made."""
    for row in ledger.rows.values():
        if calls and row["mode"] != calls[0].mode:
            raise VicunaError(f"{ledger.path}: holds judgments of --mode {row['mode']}; name another --output")
    held = {_row_slot(row): key for key, row in ledger.rows.items()}
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
    options: JudgeOptions, endpoint: Endpoint, ledger: Ledger, calls: Sequence[Call], budget: Budget
) -> Outcome:
    num_unreadable = 0
    with Progress(len(calls), description=f"{options.judge} judges", unit="judgments") as progress:

        async def judge(call: Call) -> None:
            nonlocal num_unreadable
            async with budget.reserve(call):
                row = await _judge_one(call, endpoint, budget)
            await ledger.append(row)
            num_unreadable += row["status"] == "unreadable"
            progress.update(**({"unreadable": num_unreadable} if num_unreadable else {}))

        async with endpoint:
            outcome = await run_calls(calls, judge, concurrency=options.concurrency)
    if num_unreadable:
        warning(f"{num_unreadable} verdicts cannot be read; they are kept and counted as unscored")
    return outcome


async def _judge_one(call: Call, endpoint: Endpoint, budget: Budget) -> JsonObject:
    """Ask, read, ask once more if need be: the row to keep."""
    read = read_pair if call.mode == "pair" else read_score
    dialogue = call.messages(structured=endpoint.takes_schema)
    replies: list[Reply] = []
    verdict: str | float | None = None
    cost = 0.0
    while verdict is None and len(replies) < 2:
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
        # A reply that was cut short may end inside a number: "8" of "8.5".
        verdict = None if reply.finish_reason in CUT_SHORT else read(reply.text)
        if verdict is None:
            dialogue = _ask_again(call, endpoint, reply)
    row = _row(call, dialogue, replies, verdict)
    if budget.price_per_1m:
        row["usage"]["usd"] = cost
    return row


def _cost(reply: Reply, call: Call, budget: Budget) -> float:
    """What a reply cost, in US dollars; the estimate and the worst case where the server does not count tokens."""
    prompt_tokens = call.estimated_prompt_tokens if reply.prompt_tokens is None else reply.prompt_tokens
    return budget.cost(prompt_tokens, budget.max_tokens if reply.completion_tokens is None else reply.completion_tokens)


def _ask_again(call: Call, endpoint: Endpoint, unread: Reply) -> list[Message]:
    """The conversation that asks for the verdict once more; the whole prompt again if there was no reply at all."""
    form = call.prompt.verdict_form(structured=endpoint.takes_schema)
    dialogue = call.messages(structured=endpoint.takes_schema)
    if not unread.text.strip():
        return dialogue
    again = f"The verdict in this reply cannot be read. Give it once more, explaining in two sentences at most. {form}"
    return [*dialogue, Message(role="assistant", content=unread.text), Message(role="user", content=again)]


def _row(call: Call, dialogue: Sequence[Message], replies: Sequence[Reply], verdict: str | float | None) -> JsonObject:
    prompt_text, judgment = dialogue[1].content, replies[-1].text
    prompt_tokens = _total(reply.prompt_tokens for reply in replies)
    completion_tokens = _total(reply.completion_tokens for reply in replies)
    row: JsonObject = {
        "key": call.key,
        "status": "unreadable" if verdict is None else "scored",
        "mode": call.mode,
        "question_id": call.question.question_id,
        "category": call.question.category,
        "judge": [call.judge, call.prompt.name],
        "order": call.order,
        "repeat": call.repeat,
        "turn": 1,
        "prompt_hash": call.prompt.hash,
        "question_hash": call.question_hash,
        "answers_hash": call.answers_hash,
        "cut_answers": [answer.model for answer in call.answers if answer.is_cut],
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
        "tstamp": time.time(),
    }
    if len(replies) > 1:
        row["first_reply"] = replies[0].text
    if call.mode == "single":
        return {**row, "model": call.models[0], "user_prompt": prompt_text, "judgment": judgment, "score": verdict}
    game = f"g{call.order}"
    places = {"A": "model_1", "B": "model_2"} if call.order == 1 else {"A": "model_2", "B": "model_1"}
    return {
        **row,
        "model_1": call.models[0],
        "model_2": call.models[1],
        f"{game}_user_prompt": prompt_text,
        f"{game}_judgment": judgment,
        f"{game}_winner": verdict if verdict is None else places.get(str(verdict), "tie"),
    }


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum, or None if the server left a count out."""
    known = list(counts)
    return None if None in known else sum(count for count in known if count is not None)


def _row_cost(row: JsonObject, budget: Budget) -> float:
    """What a kept row cost: as recorded, or at today's price."""
    usage = row["usage"]
    if "usd" in usage:
        return float(usage["usd"])
    return budget.cost(usage["prompt_tokens"] or 0, usage["completion_tokens"] or 0)


def _row_slot(row: JsonObject) -> tuple[object, ...]:
    """The slot of a kept row, as `Call.slot` has it."""
    models = (row["model"],) if row["mode"] == "single" else (row["model_1"], row["model_2"])
    return (row["mode"], str(row["question_id"]), models, row["judge"][0], row["order"], row["repeat"])
