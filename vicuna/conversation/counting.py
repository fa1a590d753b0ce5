"""Token counts of conversations, cached by fragment and by word.

The splitter counts one conversation repeatedly, each time with one more round. `tokens` cuts the text into fragments
whose ids are independent of their neighbours, so their counts add up and are cached. Most tokenizers never merge across
the border between a word and the space behind it, so the counts of words add up too (`words`), and most words of a text
are in the cache. Those that are not are tokenized many at a time.
"""

from collections.abc import Callable, Iterable, Sequence

from vicuna.conversation.message import Message
from vicuna.conversation.templates import Template
from vicuna.conversation.tokenizer import EncodingTokenizer
from vicuna.conversation.tokens import Encoder, Fragment, all_segments, encoder_for
from vicuna.conversation.words import Words, words_of

CountTokens = Callable[[Sequence[Message]], int]
MAX_CACHED_CHARACTERS = 1 << 22  # of the fragments whose counts are cached
MAX_CACHED_WORD_CHARACTERS = 1 << 22  # of the words whose counts are cached
WORDS_AT_ONCE, PARTS_AT_ONCE = 4096, 64


class TokenCounter:
    """Counts: `counter(messages) == len(encode(messages, template, tokenizer).input_ids)`.

    Raises, when called:
        TemplateError: as `encode`.
    """

    def __init__(self, template: Template, tokenizer: EncodingTokenizer) -> None:
        self.template = template
        self._encoder = encoder_for(template, tokenizer)
        words = words_of(tokenizer)
        self._by_word = None if words is None else _WordCounter(self._encoder, words)
        self._counts: dict[tuple[str, bool], int] = {}
        self._num_characters = 0

    def __call__(self, messages: Sequence[Message]) -> int:
        fragments = self._fragments(messages)
        self._count_new(fragments)
        return sum(1 if fragment.control_id is not None else self._counts[_key(fragment)] for fragment in fragments)

    def prepare(self, conversations: Iterable[Sequence[Message]]) -> None:
        """Fill the cache for several conversations at once, which takes less time than one after the other."""
        self._count_new([fragment for messages in conversations for fragment in self._fragments(messages)])

    def _fragments(self, messages: Sequence[Message]) -> list[Fragment]:
        return self._encoder.fragments(all_segments(messages, self.template, self._encoder))

    def _count_new(self, given: Sequence[Fragment]) -> None:
        if self._num_characters > MAX_CACHED_CHARACTERS:
            self._counts, self._num_characters = {}, 0
        texts = {_key(fragment): fragment for fragment in given if fragment.control_id is None}
        fragments = [fragment for key, fragment in texts.items() if key not in self._counts]
        divisible = [fragment for fragment in fragments if self._by_word and self._by_word.can_divide(fragment)]
        whole = [fragment for fragment in fragments if not (self._by_word and self._by_word.can_divide(fragment))]
        counts = [self._encoder.length(fragment) for fragment in whole]
        if self._by_word:
            counts += self._by_word.count(divisible)
        for fragment, count in zip([*whole, *divisible], counts, strict=True):
            self._counts[_key(fragment)] = count
            self._num_characters += len(fragment.text)


def _key(fragment: Fragment) -> tuple[str, bool]:
    return fragment.text, fragment.is_anchored


class _WordCounts(dict[str, int]):
    """Token counts of words. A word that is not in it counts 0 and is added to `missing`."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[str] = []

    def __missing__(self, word: str) -> int:
        self.missing.append(word)
        return 0


class _WordCounter:
    """Counts fragments word by word, with a cache of words and of their parts."""

    def __init__(self, encoder: Encoder, words: Words) -> None:
        self._encoder, self._words = encoder, words
        self._clear()

    def _clear(self) -> None:
        self._counts = _WordCounts()
        self._part_counts: dict[str, int] = {}
        self._num_characters = 0

    def can_divide(self, fragment: Fragment) -> bool:
        """Whether the counts of this fragment's words add up."""
        return self._words.can_divide(fragment.text) and not self._encoder.control_pattern.search(fragment.text)

    def count(self, fragments: Sequence[Fragment]) -> list[int]:
        """The tokens of each fragment."""
        if self._num_characters > MAX_CACHED_WORD_CHARACTERS:
            self._clear()
        counts = []
        later: list[tuple[int, list[str]]] = []  # (place in `counts`, words that are still to be added)
        num_missing = 0
        for fragment in fragments:
            words = self._words.cut(fragment.text)
            # Where text behind text is anchored, the first word of a text is the only one that is not.
            is_alone = fragment.is_anchored != self._encoder.needs_anchor
            first = self._count_start(words) if is_alone else 0
            missing: list[str] = []
            self._counts.missing = missing
            counts.append(first + sum(map(self._counts.__getitem__, words)))
            if missing:
                later.append((len(counts) - 1, missing))
                num_missing += len(missing)
            if num_missing > WORDS_AT_ONCE or fragment is fragments[-1]:
                self._count_new({word for _, words in later for word in words})
                for index, words in later:
                    counts[index] += sum(map(self._counts.__getitem__, words))
                later, num_missing = [], 0
        return counts

    def _count_start(self, keys: list[str]) -> int:
        """The tokens of the first words that stand for text; their keys are removed from the list."""
        text = ""
        while keys and not text:
            text = self._words.text_of(keys.pop(0))
        first, *others = self._words.pattern.findall(text)
        return sum(map(self._encoder.length, [Fragment(first, None), *map(self._fragment, others)]))

    def _fragment(self, text: str) -> Fragment:
        return Fragment(text, None, self._encoder.needs_anchor)

    def _count_new(self, words: Iterable[str]) -> None:
        """Count new words: first their new parts, then the words as the sums of their parts."""
        cut = {word: self._words.parts.findall(self._words.text_of(word)) for word in words}
        parts = [part for part in {part for inside in cut.values() for part in inside} if part not in self._part_counts]
        for start in range(0, len(parts), PARTS_AT_ONCE):
            some = parts[start : start + PARTS_AT_ONCE]
            self._part_counts.update(zip(some, self._encoder.lengths(some, self._words.separator), strict=True))
        for word, inside in cut.items():
            self._counts[word] = sum(map(self._part_counts.__getitem__, inside))
            self._num_characters += len(word)
