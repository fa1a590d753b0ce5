"""The calls of a judgment run and its budget: question, answers, judge, prompt, order, repeat, key and price of each.

After `answer`, before `judge`. A key is the hash of everything that the verdict depends on (question, reference,
answers, judge, prompt, order, repeat), so what is already in the output need not be paid again, and what has changed is
never taken for the same.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property

from vicuna.conversation import Message
from vicuna.errors import VicunaError
from vicuna.eval.answer import Answer
from vicuna.eval.ask.runner import OutOfBudget
from vicuna.eval.judging.judgment import Slot
from vicuna.eval.judging.prompts import JudgePrompt, Mode, shipped_prompt
from vicuna.eval.questions import Question, QuestionId, content_hash
from vicuna.io.log import info, warning

# English and code take about four bytes per token; three keeps an estimate on the safe side.
BYTES_PER_TOKEN = 3
# The longest prompt that is sent to a judge: about 700,000 tokens, more than any judge takes.
MAX_PROMPT_BYTES = 2 << 20
# What a judge usually writes before its verdict; the estimate uses it, the budget reserves `max_tokens`.
USUAL_REPLY_TOKENS = 300
# The request for a readable verdict, if the first reply has none.
ASK_AGAIN_TOKENS = 150


@dataclass(frozen=True)
class Call:
    """One question to the judge. `order` 1 shows the first model as A, 2 the second; a single answer has order 1."""

    mode: Mode
    question: Question
    answers: tuple[Answer, ...]
    judge: str
    temperature: float
    prompt: JudgePrompt
    order: int
    repeat: int

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose answers are judged."""
        return tuple(answer.model for answer in self.answers)

    @cached_property
    def question_hash(self) -> str:
        """A hash of the question, its category and its reference."""
        one = self.question
        return content_hash(one.question_id, one.text, one.category, one.reference)

    @cached_property
    def answers_hash(self) -> str:
        """A hash of the answers and their models."""
        return content_hash([[answer.model, answer.text] for answer in self.answers])

    @cached_property
    def key(self) -> str:
        """A hash of everything that the verdict depends on."""
        judge = [self.judge, self.temperature, self.prompt.hash]
        return content_hash(self.question_hash, self.answers_hash, judge, self.order, self.repeat)

    @property
    def slot(self) -> Slot:
        """What will be judged, and by whom."""
        return Slot(self.mode, str(self.question.question_id), self.models, self.judge, self.order, self.repeat)

    def messages(self, *, structured: bool) -> list[Message]:
        """The judge's prompt."""
        texts = {"question": self.question.text}
        if self.prompt.uses_reference:
            texts["reference"] = self.question.reference or ""
        if self.mode == "single":
            texts["answer"] = self.answers[0].text
        else:
            shown = self.answers if self.order == 1 else self.answers[::-1]
            texts |= {"answer_a": shown[0].text, "answer_b": shown[1].text}
        return self.prompt.messages(texts, structured=structured)

    @cached_property
    def prompt_bytes(self) -> int:
        """The size of the prompt."""
        return sum(len(message.content.encode("utf-8", "replace")) for message in self.messages(structured=True))

    @property
    def estimated_prompt_tokens(self) -> int:
        """Tokens of the prompt at `BYTES_PER_TOKEN`, rather too many than too few."""
        return self.prompt_bytes // BYTES_PER_TOKEN


def plan_calls(
    mode: Mode,
    questions: Sequence[Question],
    answers: Mapping[str, Mapping[QuestionId, Answer]],
    *,
    judge: str,
    temperature: float,
    both_orders: bool,
    repeats: int,
) -> list[Call]:
    """Every call of a run: for each question, model (or pair of models), order and repeat.

    Only questions that all the models answered are judged, so that the models are compared on the same ones. A
    question with a reference gets the prompt that shows it. The models of a pair stand in the order of their names,
    so that the order of the answer files makes no new calls.

    Raises:
        VicunaError: fewer models than the mode needs, no question answered by all, an answer to another wording.
    """
    if len(answers) < (2 if mode == "pair" else 1):
        raise VicunaError(f"--mode {mode} needs answers of two models or more; found {', '.join(answers) or 'none'}")
    shared = _answered_by_all(questions, answers)
    prompts = {has: shipped_prompt(mode, uses_reference=has) for has in (False, True)}
    calls = []
    for question in shared:
        given = [answers[model][question.question_id] for model in sorted(answers)]
        prompt = prompts[question.reference is not None]
        for group in itertools.combinations(given, 2 if mode == "pair" else 1):
            for repeat in range(repeats):
                for order in (1, 2) if mode == "pair" and both_orders else (1,):
                    calls.append(Call(mode, question, group, judge, temperature, prompt, order, repeat))
    return calls


def refuse_long_prompts(calls: Sequence[Call]) -> None:
    """See, before anything is paid, that no prompt is above `MAX_PROMPT_BYTES`.

    Raises:
        VicunaError: names the question, the models and the size.
    """
    for call in calls:
        if call.prompt_bytes > MAX_PROMPT_BYTES:
            raise VicunaError(
                f"question {call.question.question_id} with the answers of {' and '.join(call.models)}: the judge's "
                f"prompt has {call.prompt_bytes:,} bytes, above the limit of {MAX_PROMPT_BYTES:,}; shorten the "
                "answer or leave the question out"
            )


def _answered_by_all(
    questions: Sequence[Question], answers: Mapping[str, Mapping[QuestionId, Answer]]
) -> list[Question]:
    """The questions that every model answered, in their order.

    Raises:
        VicunaError: there is none, or an answer is to another wording of its question.
    """
    for model, answers_of_model in answers.items():
        for question in questions:
            answer = answers_of_model.get(question.question_id)
            if answer and answer.question_hash not in (None, content_hash(question.text)):
                raise VicunaError(
                    f"{model} answered question {question.question_id} in another wording; judge with the questions "
                    "that were asked (--questions)"
                )
    num_answers = {
        question.question_id: sum(question.question_id in of_model for of_model in answers.values())
        for question in questions
    }
    shared = [question for question in questions if num_answers[question.question_id] == len(answers)]
    if not shared:
        raise VicunaError("no question was answered by every model; do --questions and --answers belong together?")
    if num_partly := sum(0 < count < len(answers) for count in num_answers.values()):
        warning(f"{num_partly} questions are left out, because not every model answered them")
    if len(shared) < len(questions):
        info(f"{len(shared)} of {len(questions)} questions are answered by every model")
    return shared


class Budget:
    """Money spent and promised in one output file. A call sets its worst case aside before it is made.

    Args:
        max_usd: the most the whole file may cost, or None.
        price_per_1m: US dollars for a million prompt tokens and a million completion tokens.
        max_tokens: longest reply.
    """

    def __init__(self, max_usd: float | None, price_per_1m: tuple[float, float] | None, max_tokens: int) -> None:
        self.max_usd, self.price_per_1m, self.max_tokens = max_usd, price_per_1m, max_tokens
        self.spent_usd = self._reserved_usd = 0.0
        self._num_reserved = 0
        self._released = asyncio.Event()

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """US dollars; 0 where no price was given."""
        prompt, completion = self.price_per_1m or (0.0, 0.0)
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6

    def estimate(self, calls: Sequence[Call]) -> float:
        """What the calls are expected to cost, in US dollars."""
        reply_tokens = min(USUAL_REPLY_TOKENS, self.max_tokens)
        return sum(self.cost(call.estimated_prompt_tokens, reply_tokens) for call in calls)

    @asynccontextmanager
    async def reserve(self, call: Call) -> AsyncIterator[None]:
        """Set aside what the call costs at worst, which is two long replies; what it does cost is added to `spent_usd`
        meanwhile. Where the money left is promised to other calls, wait for these to end.

        Raises:
            OutOfBudget: it is more than is left.
        """
        second_prompt_tokens = call.estimated_prompt_tokens + self.max_tokens + ASK_AGAIN_TOKENS
        worst = self.cost(call.estimated_prompt_tokens + second_prompt_tokens, 2 * self.max_tokens)
        while self.max_usd is not None and self.spent_usd + self._reserved_usd + worst > self.max_usd:
            if not self._num_reserved:
                raise OutOfBudget(
                    f"{self.spent_usd:.4f} dollars are spent and the next call could pass --max-usd "
                    f"{self.max_usd:g}; raise it"
                )
            self._released.clear()
            await self._released.wait()
        self._num_reserved += 1
        self._reserved_usd += worst
        try:
            yield
        finally:
            self._num_reserved -= 1
            self._reserved_usd = self._reserved_usd - worst if self._num_reserved else 0.0
            self._released.set()
