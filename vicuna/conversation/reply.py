"""Reply tokens to text, incrementally: the reverse of `tokens` for one reply.

The template's lead and end are removed, and text that a later token could still change is held back: half a character,
or the beginning of a stop string.
"""

from collections.abc import Sequence

from vicuna.conversation.templates import EOS, Template
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.conversation.tokens import ANCHOR, encode_anchor, stop_token_ids

REPLACEMENT_CHARACTER = "\ufffd"  # how half a character is decoded


class ReplyDecoder:
    """Decodes the tokens of one reply, a few at a time.

    Args:
        stop: further stop strings; the reply ends before the first one that appears.

    Attributes:
        stopped: a stop string was found; the text from there on is dropped.
    """

    def __init__(self, template: Template, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        resolved = template.resolve(tokenizer.bos_token or "", tokenizer.eos_token or "")
        self.tokenizer = tokenizer
        self.stop_token_ids = stop_token_ids(template, tokenizer)
        # A stop token that this tokenizer does not have is written in letters, so it is a stop string.
        known = set(tokenizer.convert_ids_to_tokens(list(self.stop_token_ids)))
        spelled = [token for token in resolved.stop_tokens if token not in known]
        self.stop_strings = [text for text in (*resolved.stop, *spelled, *stop) if text]
        # A reply that ends on " </s>" is shown without the space.
        self.tail = template.reply_end.removesuffix(EOS) if template.reply_end.endswith(EOS) else ""
        self.lead = template.reply_lead
        self.stopped = False
        # Decoding begins behind the anchor, because sentencepiece drops the space before the first word it is given.
        self._ids = encode_anchor(template, tokenizer)
        self._begin, self._done = 0, len(self._ids)
        self._held = ""
        assert self._decode(0, self._done).endswith(ANCHOR)

    def push(self, token_ids: Sequence[int]) -> str:
        """Take the next tokens and return the text that no later token can change. Stop tokens add nothing."""
        if self.stopped:
            return ""
        self._ids += [token for token in token_ids if token not in self.stop_token_ids]
        text = self._decode(self._begin, len(self._ids))
        if text.endswith(REPLACEMENT_CHARACTER):
            return ""
        fresh = text[len(self._decode(self._begin, self._done)) :]
        if not fresh:
            return ""
        self._begin, self._done = self._done, len(self._ids)
        return self._release(fresh)

    def finish(self) -> str:
        """The rest of the text, once no more tokens come."""
        if self.stopped:
            return ""
        fresh = self._decode(self._begin, len(self._ids))[len(self._decode(self._begin, self._done)) :]
        self._begin = self._done = len(self._ids)
        shown = self._release(fresh)
        if self.stopped:
            return shown
        rest, self._held = self._held, ""
        return shown + (rest if rest != self.tail else "")

    def _decode(self, start: int, end: int) -> str:
        text: str = self.tokenizer.decode(
            self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _release(self, fresh: str) -> str:
        """Text that cannot become part of a stop string any more."""
        if self.lead and fresh:
            fresh, self.lead = fresh.removeprefix(self.lead), ""
        text = self._held + fresh
        found = [place for stop in self.stop_strings if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = max((_overlap(text, stop) for stop in self.stop_strings), default=0)
        if self.tail and text.endswith(self.tail):
            held = max(held, len(self.tail))
        cut = len(text) - held
        self._held = text[cut:]
        return text[:cut]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
