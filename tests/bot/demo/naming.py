"""Does a model name itself when it is asked who it is, and only then? At the settings the chat page starts with.

And whether a text repeats itself, or talks of the assistant unasked.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vicuna.bot.demo.chain import TEMPLATE
from vicuna.conversation import Message, encode_prompt, get_template, stop_token_ids
from vicuna.serve.engines.interface import Engine, EngineOptions, EngineRequest, load_engine
from vicuna.serve.sampling import Sampling
from vicuna.serve.web.events import DEFAULTS

NAMING = ("hi", "Who are you?", "What is your name?")
# Kept out of the training data, so that these measure what was learned and not what was memorised.
ASIDE = ("hello", "who am I talking to?", "Are you ChatGPT?", "who made you?", "Tell me about yourself")
PLAIN = (
    "What is the capital of France?",
    "Who wrote Romeo and Juliet?",
    "Are dolphins fish?",
    "Tell me about the moon.",
)
ABOUT_ITSELF = re.compile(r"vicuna|chat assistant|language model|open-source project", re.IGNORECASE)
PHRASE_WORDS = 6
MAX_SAID = 2  # how often a sentence or phrase may be said
MAX_NEW_TOKENS = 60  # the name comes in the first sentence


def load(model: Path) -> Engine:
    """The model in the engine and dtype that the demo serves it with."""
    return load_engine("native", EngineOptions(str(model), dtype="float32", max_slots=8, max_context=512))


def replies(engine: Engine, question: str, seeds: Sequence[int]) -> list[str]:
    """One sampled reply to the question for each seed."""
    template, ids = get_template(TEMPLATE), {}
    prompt = tuple(encode_prompt([Message("user", question)], template, engine.tokenizer))
    stop = frozenset(stop_token_ids(template, engine.tokenizer)) | engine.end_token_ids
    for seed in seeds:
        sampling = Sampling(temperature=DEFAULTS["temperature"], top_p=DEFAULTS["top_p"], top_k=0, seed=seed)
        engine.submit(EngineRequest(str(seed), prompt, len(prompt), MAX_NEW_TOKENS, stop, sampling))
        ids[str(seed)] = list[int]()
    while engine.is_busy:
        for step in engine.step():
            ids[step.request_id] += step.token_ids
    return [engine.tokenizer.decode(tokens) for tokens in ids.values()]


def talks_of_itself(text: str) -> bool:
    """Whether an answer to a question about something else is about the assistant."""
    return bool(ABOUT_ITSELF.search(text))


def repeats_itself(text: str) -> bool:
    """Whether a sentence of three words or more, or a phrase of six, is said three times."""
    sentences = [re.findall(r"\w+", sentence.lower()) for sentence in re.split(r"[.!?\n]+", text)]
    words = re.findall(r"\w+", text.lower())
    said = Counter(tuple(sentence) for sentence in sentences if len(sentence) >= 3)
    said += Counter(tuple(words[start : start + PHRASE_WORDS]) for start in range(len(words) - PHRASE_WORDS + 1))
    return max(said.values(), default=0) > MAX_SAID
