"""Reply tokens to text, incrementally: the reverse of `tokens` for one reply.

The template's lead and end are removed, and text that a later token could still change is held back: half a character,
or the beginning of a stop string. A token costs the same whatever stands before it.
"""

from collections.abc import Sequence

from vicuna.conversation.templates import EOS, Template
from vicuna.conversation.tokenizer import Tokenizer
from vicuna.conversation.tokens import encode_anchor, stop_token_ids

REPLACEMENT_CHARACTER = "\ufffd"  # how half a character is decoded
MAX_HELD_TOKENS = 32
"""Tokens held back for a character that they may be the beginning of: a whole one has four bytes, so that tokens which
end in half of one for so long are broken, and shown so."""


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
        self._searches = [_Search(text) for text in self.stop_strings]
        # Tokens that are not shown: those that end a reply, and those that decoding leaves out.
        special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        self._hidden = self.stop_token_ids | special
        # Decoding begins behind the anchor, because sentencepiece drops the space before the first word it is given.
        anchor, self._anchor = encode_anchor(template, tokenizer)
        self._ids, self._num_shown = list(self._anchor), len(self._anchor)  # ids are those decoded; the first are shown
        self._shown = self._decode(self._ids)
        self._held = ""
        assert self._shown.endswith(anchor)

    def push(self, token_ids: Sequence[int]) -> str:
        """Take the next tokens and return the text that no later token can change. Stop tokens add nothing."""
        return "".join([self._push(token) for token in token_ids if token not in self._hidden])

    def _push(self, token: int) -> str:
        if self.stopped:
            return ""
        self._ids.append(token)
        text = self._decode(self._ids)
        is_broken = len(self._ids) - self._num_shown > MAX_HELD_TOKENS
        if text.endswith(REPLACEMENT_CHARACTER) and not is_broken:
            return ""
        fresh = text[len(self._shown) :]
        if not fresh and not is_broken:
            return ""
        if text.endswith(REPLACEMENT_CHARACTER) or not fresh:  # whatever they begin, it does not go on with what comes
            self._ids, self._num_shown = list(self._anchor), len(self._anchor)
        else:
            self._ids = self._ids[self._num_shown :]
            self._num_shown = len(self._ids)
        self._shown = self._decode(self._ids)
        return self._release(fresh)

    def finish(self) -> str:
        """The rest of the text, once no more tokens come."""
        if self.stopped:
            return ""
        fresh = self._decode(self._ids)[len(self._shown) :]
        self._num_shown, self._shown = len(self._ids), self._shown + fresh
        shown = self._release(fresh)
        if self.stopped:
            return shown
        rest, self._held = self._held, ""
        return shown + (rest if rest != self.tail else "")

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _release(self, fresh: str) -> str:
        """Text that cannot become part of a stop string any more."""
        if self.lead and fresh:
            fresh, self.lead = fresh.removeprefix(self.lead), ""
        text = self._held + fresh
        found = [place for search in self._searches if (place := search.find(fresh)) is not None]
        if found:
            self.stopped, held = True, self._held
            self._held = ""
            return text[: len(held) + min(found)]
        num_held = max((search.num_matched for search in self._searches), default=0)
        if self.tail and text.endswith(self.tail):
            num_held = max(num_held, len(self.tail))
        cut = len(text) - num_held
        self._held = text[cut:]
        return text[:cut]


class _Search:
    """The search for one stop string in a text that comes in pieces: each character is looked at once.

    (Knuth, Morris and Pratt's: behind a part of the string that does not go on, the next longest part is tried.)

    Attributes:
        num_matched: characters at the end of the text so far that are the beginning of the string.
    """

    def __init__(self, sought: str) -> None:
        self.num_matched = 0
        self._sought, self._shorter = sought, [0]  # by number: of matched characters less one, those of the next try
        for character in sought[1:]:
            self._shorter.append(self._next(self._shorter[-1], character))

    def _next(self, number: int, character: str) -> int:
        while number and self._sought[number] != character:
            number = self._shorter[number - 1]
        return number + (self._sought[number] == character)

    def find(self, fresh: str) -> int | None:
        """Where the string begins, counted from the start of the fresh text; None if it is not whole yet."""
        number = self.num_matched
        if not number and self._sought[0] not in fresh:  # as in most texts
            return None
        for place, character in enumerate(fresh, 1):
            number = self._next(number, character)
            if number == len(self._sought):
                return place - number
        self.num_matched = number
        return None
