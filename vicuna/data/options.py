"""The options of a cleaning: the one home of its flags, their defaults and their help.

`__main__` parses them, `pipeline` makes the steps from them; those that shape the result are written in its manifest.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vicuna.options import option
from vicuna.weights.resolve import NAMES

LISTS = Path(__file__).parent / "lists"  # the shipped word lists
SHIPPED, NONE = "shipped", "none"  # words in place of a file: the shipped list, and an empty one
OverLong = Literal["drop", "cut", "keep"]

# Defaults that the steps' own functions have too.
ERROR_CHARACTERS = 300  # the longest known error message has 180
REFUSAL_CHARACTERS = 400  # longer answers explain or offer something
MIN_CONFIDENCE = 0.5  # more than all other languages together
# The part of a text's word 5-grams that came before in it. Among 609 answers of ShareGPT with 150 words or more the
# highest is 0.39; a song that takes all verses up again ("The Twelve Days of Christmas") comes near 0.7.
REPEATED_PART = 0.8


def shipped_words(name: str) -> frozenset[str]:
    """The words of a file in `LISTS`: any number on a line; lines that begin with # are comments."""
    lines = (LISTS / name).read_text("utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())


@dataclass(frozen=True)
class DataOptions:
    """`vicuna data` options."""

    inputs: tuple[Path, ...] = option(
        help="files, folders or quoted patterns: JSON arrays, JSON lines (each also .gz or .zst) or parquet, of "
        "conversations in the shape of ShareGPT, OpenAI messages or Alpaca",
        positional=True,
        metavar="INPUT",
    )
    output_dir: Path = option(help="folder for the result; an earlier result in it is replaced")
    tokenizer: Path | None = option(
        None,
        help=f"the model to be trained, whose tokenizer counts the tokens: {NAMES}",
        metavar="MODEL",
        group="tokens",
    )
    template: str | None = option(None, help="conversation template of the training, for counting tokens")
    max_tokens: int | None = option(None, help="split conversations longer than this many tokens, between rounds")
    over_long: OverLong = option(
        "drop",
        help="a round that alone is longer: leave it out, cut its answer where a block ends, or keep and mark it",
    )
    carry_over: int = option(0, help="earlier rounds that a later piece repeats as context, not trained on again")
    languages: tuple[str, ...] = option(
        (), help="keep only these, by code (en de ...), and what is too short to tell", group="what stays"
    )
    skip_languages: tuple[str, ...] = option((), help="drop these, by code; und: what is too short to tell")
    pii: Literal["replace", "drop", "keep"] = option(
        "replace", help="mail addresses, phone numbers, keys and the like: put placeholders, drop the record, or keep"
    )
    decontaminate: tuple[Path, ...] = option(
        (), help="drop conversations that ask a question of these files too, not only the shipped evaluation questions"
    )
    refusals: tuple[str, ...] = option(
        (SHIPPED,),
        help="how a short answer begins that only refuses: files in place of the shipped list, or beside it if the "
        "word shipped is given too; none: an empty list",
        metavar="LIST",
        group="word lists",
    )
    refusal_turns: tuple[str, ...] = option(
        (SHIPPED,), help="words by which a refusal goes on to help, so that it stays; likewise", metavar="LIST"
    )
    blocked: tuple[str, ...] = option(
        (SHIPPED,),
        help="phrases that no answer may hold outside of code, such as another assistant's name for itself; likewise",
        metavar="LIST",
    )
    error_messages: tuple[str, ...] = option(
        (SHIPPED,), help="what a page shows in place of an answer; likewise", metavar="LIST"
    )
    leftovers: tuple[str, ...] = option(
        (SHIPPED,), help="button words of the page, taken off the ends of answers; likewise", metavar="LIST"
    )
    max_refusal_characters: int = option(
        REFUSAL_CHARACTERS, help="a longer answer is no bare refusal, however it begins", minimum=1, group="limits"
    )
    max_error_characters: int = option(ERROR_CHARACTERS, help="a longer paragraph is no error message", minimum=1)
    repeated_part: float = option(
        REPEATED_PART,
        help="an answer of 200 words or more is caught in a loop if this part of its five-word phrases came before in "
        "it (above 0 to 1; 1: never)",
    )
    min_language_confidence: float = option(
        MIN_CONFIDENCE, help="a language found with less confidence (0 to 1) than this is und"
    )
    near_duplicates: float = option(
        0.8,
        help="merge records whose words are as similar as this (0 to 1); 0 merges equal and continued ones only",
        group="what stays",
    )
    held_out_ratio: float = option(0.0, help="part of the conversations (0 to below 1) to keep from training")
    only: tuple[str, ...] = option((), help="run these steps and no others", metavar="STEP", group="steps")
    skip: tuple[str, ...] = option((), help="leave these steps out", metavar="STEP")
    strict: bool = option(False, help="stop at the first record that cannot be read or that a step fails on")
    workers: int | None = option(
        None, help="processes that clean at once; by default one for each processor", group="work"
    )
    engine: Literal["local", "ray"] = option(
        "local", help="where they run: on this machine, or on Ray (RAY_ADDRESS names a cluster)"
    )


EXECUTION_OPTIONS = frozenset({"inputs", "output_dir", "strict", "workers", "engine"})  # these do not change the result
