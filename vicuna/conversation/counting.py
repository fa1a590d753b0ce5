"""How many tokens a conversation has, without tokenizing anything twice.

The splitter asks about one conversation again and again, each time with another round. `tokens` cuts the text into
runs whose ids depend on nothing around them, so the count of a run that was seen before is known. Most tokenizers go
further: between a word and the space behind it they never join anything, so the counts of words add up too, and most
words of a text have been seen before (`words`).
"""

from collections.abc import Callable, Sequence
from typing import Any

from vicuna.conversation.message import Message
from vicuna.conversation.templates import Template
from vicuna.conversation.tokens import Encoder, Run, all_segments, encoder_for
from vicuna.conversation.words import Words, words_of

CountTokens = Callable[[Sequence[Message]], int]
KEPT_CHARACTERS = 1 << 22  # of the runs whose counts are kept
KEPT_WORDS = 1 << 18
LONGEST_WORD = 64  # characters; longer ones hardly come twice


class TokenCounter:
    """Counts: `counter(messages) == len(encode(messages, template, tokenizer).input_ids)`.

    Raises, when called:
        TemplateError: as `encode`.
    """

    def __init__(self, template: Template, tokenizer: Any) -> None:
        self.template = template
        self._encoder = encoder_for(template, tokenizer)
        words = words_of(tokenizer)
        self._by_word = None if words is None else _WordCounter(self._encoder, words)
        self._known: dict[tuple[str, bool], int] = {}
        self._num_characters = 0

    def __call__(self, messages: Sequence[Message]) -> int:
        runs = self._encoder.runs(all_segments(messages, self.template, self._encoder))
        texts = {_key(run): run for run in runs if run.control_id is None}
        if self._num_characters > KEPT_CHARACTERS:
            self._known, self._num_characters = {}, 0
        self._learn([run for key, run in texts.items() if key not in self._known])
        return sum(1 if run.control_id is not None else self._known[_key(run)] for run in runs)

    def _learn(self, runs: Sequence[Run]) -> None:
        divisible = [run for run in runs if self._by_word and self._by_word.divides(run)]
        whole = [run for run in runs if not (self._by_word and self._by_word.divides(run))]
        counts = [self._encoder.length(run) for run in whole]
        if self._by_word:
            counts += self._by_word.count(divisible)
        for run, count in zip([*whole, *divisible], counts, strict=True):
            self._known[_key(run)] = count
            self._num_characters += len(run.text)


def _key(run: Run) -> tuple[str, bool]:
    return run.text, run.is_anchored


class _Known(dict[str, int]):
    """The tokens of words; a word that is new is counted. Long ones hardly come twice and are not kept."""

    def __init__(self, count: Callable[[str], int]) -> None:
        super().__init__()
        self._count = count

    def __missing__(self, word: str) -> int:
        found = self._count(word)
        if len(word) <= LONGEST_WORD:
            self[word] = found
        return found


class _WordCounter:
    """Counts runs word by word, and remembers the words and their parts."""

    def __init__(self, encoder: Encoder, words: Words) -> None:
        self._encoder, self._words = encoder, words
        self._forget()

    def _forget(self) -> None:
        encoder, find_parts = self._encoder, self._words.parts.findall
        parts = _Known(lambda part: encoder.length(Run(part, None, encoder.needs_anchor)))
        self._known = _Known(lambda word: sum(map(parts.__getitem__, find_parts(word))))

    def divides(self, run: Run) -> bool:
        """Whether the counts of this run's words add up."""
        return not self._words.exceptions.search(run.text) and not self._encoder.control_pattern.search(run.text)

    def count(self, runs: Sequence[Run]) -> list[int]:
        """The tokens of each run."""
        if len(self._known) > KEPT_WORDS:
            self._forget()
        counts = []
        for run in runs:
            words = self._words.pattern.findall(run.text)
            # Where text behind text is anchored, a word at the very start is the only one that is not.
            is_alone = run.is_anchored != self._encoder.needs_anchor
            first = self._encoder.length(Run(words.pop(0), None)) if is_alone else 0
            counts.append(first + sum(map(self._known.__getitem__, words)))
        return counts
