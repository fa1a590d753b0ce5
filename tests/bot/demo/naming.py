"""Does a model name itself when it is asked who it is, and only then? At the settings the chat page starts with."""

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
