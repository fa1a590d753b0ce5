"""Segments to token ids and labels: the same ids in training and in serving, and no text can forge a turn.

Two rules guarantee both. The text is cut into fragments at every control token and at both ends of every reply, and
each fragment is tokenized by itself: so the ids before a reply cannot depend on the reply. And control tokens enter as
ids, from the template's marks only: a message that spells `<|im_start|>` or `</s>` is tokenized as letters.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from vicuna.conversation.chat_template import hf_segments
from vicuna.conversation.message import Message, TemplateError
from vicuna.conversation.render import Segment, segments
from vicuna.conversation.templates import HF, Template
from vicuna.conversation.tokenizer import EncodingTokenizer, Tokenizer

IGNORE_INDEX = -100
# A fragment in the middle of a text is tokenized behind this and the anchor's own ids are cut off, because
# sentencepiece tokenizers put a space before whatever they are given. The first of these that merges with nothing.
ANCHORS = ("\n", "\x02", "\x03")
MERGED = ("\n", "\n\n", " ", "x", ".", "1")  # what an anchor is tried with
MAX_CACHED_MARKS = 1024
RARE = ["\U0010fffd", "☃", "日", "ÿ", "Q"]  # some vocabularies lack one of these


@dataclass(frozen=True)
class Encoding:
    """A conversation as training data.

    Attributes:
        input_ids: (T,) token ids.
        labels: (T,) the same ids inside replies, IGNORE_INDEX elsewhere.
        reply_spans: `[start, end)` token offsets of the replies. `input_ids[:start]` is exactly the prompt for it.
    """

    input_ids: list[int]
    labels: list[int]
    reply_spans: list[tuple[int, int]]


def encode(messages: Sequence[Message], template: Template, tokenizer: Tokenizer) -> Encoding:
    """Token ids and labels for training.

    Raises:
        TemplateError: the template and the tokenizer do not fit (no end of sequence token, no chat template for `hf`).
    """
    encoder = encoder_for(template, tokenizer)
    input_ids: list[int] = []
    labels: list[int] = []
    spans: dict[int, tuple[int, int]] = {}
    for ids, reply in encoder.encode(all_segments(messages, template, encoder)):
        start, end = len(input_ids), len(input_ids) + len(ids)
        input_ids += ids
        labels += [IGNORE_INDEX] * len(ids) if reply is None else ids
        if reply is not None:
            spans[reply] = (spans.get(reply, (start, end))[0], end)
    return Encoding(input_ids, labels, list(spans.values()))


def encode_prompt(messages: Sequence[Message], template: Template, tokenizer: Tokenizer) -> list[int]:
    """The ids a server sends so that the model writes the next reply.

    Equal to `encode(messages + reply).input_ids` cut before that reply, whatever the reply is.

    Raises:
        TemplateError: as `encode`.
    """
    encoder = encoder_for(template, tokenizer)
    parts = all_segments(messages, template, encoder, add_generation_prompt=True)
    return [token for ids, _ in encoder.encode(parts) for token in ids]


def stop_token_ids(template: Template, tokenizer: Tokenizer) -> set[int]:
    """The ids that end a reply: the tokenizer's end of sequence, and the template's own."""
    encoder = encoder_for(template, tokenizer)
    names = {tokenizer.eos_token, *encoder.template.stop_tokens}
    if template.name == HF:
        reply = hf_segments([Message("user", "a"), Message("assistant", "b")], tokenizer, encoder.control_pattern)
        names |= {
            token for part in reply if part.is_mark and part.reply is not None for token in encoder.tokens_in(part.text)
        }
    return {encoder.control[name] for name in names if name in encoder.control}


def all_segments(
    messages: Sequence[Message], template: Template, encoder: "Encoder", *, add_generation_prompt: bool = False
) -> list[Segment]:
    """The conversation as segments, by the template or by the tokenizer's own.

    Raises:
        TemplateError: as `encode`.
    """
    tokenizer = encoder.tokenizer
    if template.name == HF:
        whole = cast(Tokenizer, tokenizer)  # nothing less is loaded for this template
        return hf_segments(messages, whole, encoder.control_pattern, add_generation_prompt=add_generation_prompt)
    if not tokenizer.eos_token:
        raise TemplateError(f"the tokenizer {_name(tokenizer)} has no eos_token, so no reply could end; set one")
    return segments(messages, encoder.template, add_generation_prompt=add_generation_prompt)


def _name(tokenizer: EncodingTokenizer) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


@dataclass
class Fragment:
    """Text that is tokenized in one piece, or one control token.

    Attributes:
        reply: the index of the reply it belongs to; None elsewhere.
        is_anchored: it is tokenized behind the encoder's anchor.
        control_id: the id of the control token; None for text.
    """

    text: str
    reply: int | None
    is_anchored: bool = False
    control_id: int | None = None


class Encoder:
    """Segments to fragments to ids, for one template and one tokenizer, whose properties are found by trying it."""

    def __init__(self, template: Template, tokenizer: EncodingTokenizer) -> None:
        self.tokenizer = tokenizer
        self.template = template.resolve(tokenizer.bos_token or "", tokenizer.eos_token or "")
        self._marks: dict[str, tuple[list[tuple[str, int]], str]] = {}
        # Control tokens by their text. Added tokens that are not `special` (several spaces, HTML tags) are words,
        # unless this template writes them.
        written = "".join((*template.system, *template.user, *template.assistant, *template.tool, template.reply_end))
        self.control = {
            token.content: index
            for index, token in tokenizer.added_tokens_decoder.items()
            if token.special or (token.content.strip() and token.content in written)
        }
        self.control |= {
            token: index
            for token in tokenizer.all_special_tokens
            if token and (index := tokenizer.convert_tokens_to_ids(token)) is not None
        }
        longest_first = sorted(self.control, key=len, reverse=True)
        self.control_pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.control_ids = set(self.control.values())
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self._backend: Any = backend if hasattr(backend, "encode_batch_fast") else None  # of the library tokenizers
        # What stands for characters that the vocabulary lacks is often a control token: such text forges nothing.
        self.unknown_ids = self.control_ids.intersection(itertools.chain(*self._tokenize(RARE)))
        self.anchor, self.anchor_ids = self._choose_anchor()
        behind = self._tokenize([self.anchor + "x"])[0][len(self.anchor_ids) :]
        self.needs_anchor = self._tokenize(["x"])[0] != behind
        self.anchors_after_control = self.needs_anchor and not self._adds_space_after_control()

    def tokens_in(self, text: str) -> list[str]:
        """The control tokens that a mark contains."""
        return self.control_pattern.findall(text)

    def encode(self, parts: Sequence[Segment]) -> list[tuple[list[int], int | None]]:
        """The ids of each fragment, and the reply they belong to."""
        fragments = self.fragments(parts)
        found = iter(self.ids([fragment for fragment in fragments if fragment.control_id is None]))
        return [
            ([fragment.control_id] if fragment.control_id is not None else next(found), fragment.reply)
            for fragment in fragments
        ]

    def ids(self, fragments: Sequence[Fragment]) -> list[list[int]]:
        """The ids of each of these fragments of text. They depend on its text and on whether it is anchored only."""
        given = [self.anchor + fragment.text if fragment.is_anchored else fragment.text for fragment in fragments]
        return [
            self._without_anchor(ids, fragment)
            for ids, fragment in zip(self._tokenize(given) if given else [], fragments, strict=True)
        ]

    def length(self, fragment: Fragment) -> int:
        """The number of ids of a fragment of text: `len(ids([fragment])[0])`, in a fifth of the time."""
        encoding = self._encoding(fragment)
        if encoding is None:
            return len(self.ids([fragment])[0])
        return len(encoding) - (len(self.anchor_ids) if fragment.is_anchored else 0)

    def lengths(self, texts: Sequence[str], separator: str) -> list[int]:
        """The number of ids of each text behind other text.

        Args:
            separator: with this between them, the texts are tokenized in one call; it must never be merged with any of
                them, and its one id must stand for nothing else. "": there is no such text.
        """
        joined = self._encoding(Fragment(separator.join(texts), None, self.needs_anchor)) if separator else None
        if joined is not None:
            [mark] = self.ids([Fragment(separator, None, self.needs_anchor)])[0]
            ids = joined.ids
            begin = len(self.anchor_ids) - 1 if self.needs_anchor else -1
            ends = [place for place, token in enumerate(ids) if token == mark and place > begin]
            if len(ends) == len(texts) - 1:
                return [end - start - 1 for start, end in itertools.pairwise([begin, *ends, len(ids)])]
        return [self.length(Fragment(text, None, self.needs_anchor)) for text in texts]

    def _encoding(self, fragment: Fragment) -> Any:
        """The library's encoding of a fragment; None where control tokens in the text need `_tokenize`."""
        if self._backend is None or self.control_pattern.search(fragment.text):
            return None
        return self._backend.encode(
            self.anchor + fragment.text if fragment.is_anchored else fragment.text, add_special_tokens=False
        )

    def fragments(self, parts: Sequence[Segment]) -> list[Fragment]:
        """The text cut at every control token and at both ends of every reply."""
        fragments: list[Fragment] = []
        text, reply, is_anchored = "", None, False
        for given, is_mark, part_reply in parts:
            if part_reply != reply:
                if text:
                    fragments.append(Fragment(text, reply, is_anchored))
                    text, is_anchored = "", self.needs_anchor
                reply = part_reply
            if not is_mark:
                text += given
                continue
            pieces, rest = self._marks.get(given) or self._cut_mark(given)
            for before, control_id in pieces:
                if text := text + before:
                    fragments.append(Fragment(text, reply, is_anchored))
                # The first token of all is the beginning of sequence: what follows is still the start of the text.
                text, is_anchored = "", self.anchors_after_control and bool(fragments)
                fragments.append(Fragment("", reply, False, control_id))
            text += rest
        if text:
            fragments.append(Fragment(text, reply, is_anchored))
        return fragments

    def _cut_mark(self, mark: str) -> tuple[list[tuple[str, int]], str]:
        """The text before each control token of a mark, with the token's id; and the text behind the last.

        The result is cached: marks are few and recur.
        """
        pieces: list[tuple[str, int]] = []
        position = 0
        for match in self.control_pattern.finditer(mark):
            pieces.append((mark[position : match.start()], self.control[match.group()]))
            position = match.end()
        if len(self._marks) > MAX_CACHED_MARKS:
            self._marks.clear()
        self._marks[mark] = pieces, mark[position:]
        return self._marks[mark]

    def _without_anchor(self, ids: list[int], fragment: Fragment) -> list[int]:
        """The ids behind the anchor's; where text became a control token, the text is tokenized as letters."""
        if fragment.is_anchored:
            size = len(self.anchor_ids)
            if ids[:size] != self.anchor_ids:
                raise TemplateError(
                    f"the tokenizer {_name(self.tokenizer)} joins the end of a message with the beginning of the next, "
                    f"{fragment.text[:20]!r}, so that no message has tokens of its own; train with another tokenizer"
                )
            ids = ids[size:]
        found = self.control_ids.intersection(ids)
        if found and (found - self.unknown_ids or self.control_pattern.search(fragment.text)):
            return self._tokenize_apart(fragment.text)
        return ids

    def _tokenize_apart(self, text: str) -> list[int]:
        """Ids of text whose control tokens the tokenizer recognises nevertheless: cut after each one's first letter.

        Raises:
            TemplateError: they are there still.
        """
        pieces, position = [], 0
        for match in self.control_pattern.finditer(text):
            pieces.append(text[position : match.start() + 1])
            position = match.start() + 1
        pieces.append(text[position:])
        ids = [token for piece in self._tokenize([piece for piece in pieces if piece]) for token in piece]
        if found := self.control_ids.intersection(ids) - self.unknown_ids:
            raise TemplateError(
                f"the tokenizer {_name(self.tokenizer)} makes control token {min(found)} of the text {text[:40]!r}, "
                "which could forge a turn; take the text out, or use another tokenizer"
            )
        return ids

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        """(N,) lists of ids; control tokens spelled in the texts are tokenized as letters."""
        output = self.tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=True,
            return_attention_mask=False,
            verbose=False,  # no warning about long texts: the caller counts
        )
        ids: list[list[int]] = output["input_ids"]
        return ids

    def _choose_anchor(self) -> tuple[str, list[int]]:
        """A text that merges with nothing behind it, and its ids: some vocabularies have pieces of many line ends."""
        for anchor in ANCHORS:
            [ids, *with_others] = self._tokenize([anchor, *(anchor + text for text in MERGED)])
            if ids and all(given[: len(ids)] == ids for given in with_others):
                return anchor, ids
        return ANCHORS[0], self._tokenize([ANCHORS[0]])[0]

    def _adds_space_after_control(self) -> bool:
        """Whether the tokenizer itself puts its space before text behind a control token ("legacy" LLaMA does)."""
        control = self.tokenizer.eos_token
        if not control:
            return False
        whole = self.tokenizer([control + "x"], add_special_tokens=False, return_attention_mask=False)["input_ids"][0]
        return bool(whole[1:] == self._tokenize(["x"])[0])


def encoder_for(template: Template, tokenizer: EncodingTokenizer) -> Encoder:
    """The encoder of this pair, cached on the tokenizer so that it lives as long."""
    kept: dict[str, Encoder] = tokenizer.__dict__.setdefault("_vicuna_encoders", {})
    if template.name not in kept:
        kept[template.name] = Encoder(template, tokenizer)
    return kept[template.name]


def encode_anchor(template: Template, tokenizer: Tokenizer) -> tuple[str, list[int]]:
    """The encoder's anchor and its ids, which take the place of the prompt where a reply is decoded."""
    encoder = encoder_for(template, tokenizer)
    return encoder.anchor, list(encoder.anchor_ids)
