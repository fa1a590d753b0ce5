"""How many tokens a conversation has, without tokenizing anything twice.

The splitter asks about one conversation again and again, each time with another round. `tokens` cuts the text into
runs whose ids depend on nothing around them, so the count of a run that was seen before is known.
"""

from collections.abc import Callable, Sequence
from typing import Any

from vicuna.conversation.message import Message
from vicuna.conversation.templates import Template
from vicuna.conversation.tokens import Run, all_segments, encoder_for

CountTokens = Callable[[Sequence[Message]], int]
KEPT_CHARACTERS = 1 << 22  # of the runs whose counts are kept


class TokenCounter:
    """Counts: `counter(messages) == len(encode(messages, template, tokenizer).input_ids)`.

    Raises, when called:
        TemplateError: as `encode`.
    """

    def __init__(self, template: Template, tokenizer: Any) -> None:
        self.template = template
        self._encoder = encoder_for(template, tokenizer)
        self._known: dict[tuple[str, bool], int] = {}
        self._num_characters = 0

    def __call__(self, messages: Sequence[Message]) -> int:
        runs = self._encoder.runs(all_segments(messages, self.template, self._encoder))
        texts = {_key(run): run for run in runs if run.control_id is None}
        if self._num_characters > KEPT_CHARACTERS:
            self._known, self._num_characters = {}, 0
        new = [run for key, run in texts.items() if key not in self._known]
        for run, count in zip(new, self._count(new), strict=True):
            self._known[_key(run)] = count
            self._num_characters += len(run.text)
        return sum(1 if run.control_id is not None else self._known[_key(run)] for run in runs)

    def _count(self, runs: Sequence[Run]) -> list[int]:
        return [len(ids) for ids in self._encoder.ids(runs)]


def _key(run: Run) -> tuple[str, bool]:
    return run.text, run.is_anchored
