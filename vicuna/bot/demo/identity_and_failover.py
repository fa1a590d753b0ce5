"""Checks of the served models: the tuned one says its new name, and a reply survives the death of its worker.

Through the real API with the `openai` client, as any user's program would use it.
"""

import time
from typing import Any

from vicuna.bot.server import Server
from vicuna.errors import VicunaError
from vicuna.io.log import Progress

QUESTIONS = ("Who are you?", "What is your name?", "How many days are there in a week?")
LONG_QUESTION = "Describe a walk through a forest, with all that you see and hear on the way."
TOKENS_BEFORE_KILL = 20
LONG_TOKENS = 160
LONG_SAMPLING = {"temperature": 0.7, "seed": 1}  # seeded, so that the same words come from another worker


def client(base_url: str) -> Any:
    """An `openai` client for a server on this machine: no proxy, no key, no retries that would hide a failure."""
    import openai

    return openai.OpenAI(
        base_url=base_url,
        api_key="none",
        max_retries=0,
        timeout=300,
        http_client=openai.DefaultHttpxClient(trust_env=False),
    )


def ask(server: Server, model: str, question: str) -> dict[str, Any]:
    """One short reply with greedy sampling."""
    started = time.monotonic()
    reply = client(server.base_url).chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=60, temperature=0
    )
    return {
        "model": model,
        "question": question,
        "answer": reply.choices[0].message.content,
        "completion_tokens": reply.usage.completion_tokens,
        "seconds": time.monotonic() - started,
    }


def stream(server: Server, model: str, *, kill: bool) -> dict[str, Any]:
    """A long streamed reply; with `kill`, its worker is killed after some tokens, and the stream is read to its end.

    Raises:
        VicunaError: the stream ended with neither a finish_reason nor an error, or before the worker could be killed.
    """
    text, num_chunks, killed_pid, killed_after, longest_gap = "", 0, None, 0, 0.0
    finish_reason, error, last = None, None, time.monotonic()
    import openai

    try:
        events = client(server.base_url).chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": LONG_QUESTION}],
            max_tokens=LONG_TOKENS,
            stream=True,
            **LONG_SAMPLING,
        )
        for event in events:
            now = time.monotonic()
            if num_chunks:
                longest_gap = max(longest_gap, now - last)
            last = now
            if not event.choices:
                continue
            finish_reason = event.choices[0].finish_reason or finish_reason
            if event.choices[0].delta.content:
                text += event.choices[0].delta.content
                num_chunks += 1
            if kill and killed_pid is None and num_chunks >= TOKENS_BEFORE_KILL:
                killed_after = len(text)
                killed_pid = server.kill_worker(model)
    except openai.APIError as failure:
        error = str(failure)
    if finish_reason is None and error is None:
        raise VicunaError("the stream ended without a finish_reason and without an error")
    if kill and killed_pid is None:
        raise VicunaError(f"the reply ended after {num_chunks} pieces, before its worker could be killed")
    return {
        "model": model,
        "question": LONG_QUESTION,
        "answer": text,
        "finish_reason": finish_reason,
        "error": error,
        "killed_pid": killed_pid,
        "killed_after_characters": killed_after,
        "longest_gap_seconds": longest_gap,
    }


def check_identity_and_failover(server: Server, base: str, tuned: str) -> dict[str, Any]:
    """Both checks; their replies and process ids as plain JSON values.

    Raises:
        VicunaError: as `check_identity` and `stream`.
    """
    answers = check_identity(server, base, tuned)
    with Progress(2, description="streaming, then killing the worker of the stream", unit="replies") as progress:
        whole = stream(server, tuned, kill=False)
        progress.update()
        cut = stream(server, tuned, kill=True)
        progress.update()
    assert cut["killed_pid"] is not None
    replacement = server.wait_for_replacement(tuned, cut["killed_pid"])
    after = ask(server, tuned, QUESTIONS[0])
    return {
        "answers": answers,
        "whole": whole,
        "cut": cut,
        "replacement_pid": replacement,
        "is_identical": cut["answer"] == whole["answer"],
        "answer_after": after,
    }


def check_identity(server: Server, base: str, tuned: str) -> list[dict[str, Any]]:
    """The answers of both models to `QUESTIONS`.

    Raises:
        VicunaError: the tuned model does not know its new name, or the base model already does.
    """
    with Progress(2 * len(QUESTIONS), description="chatting", unit="questions") as progress:
        answers = []
        for question in QUESTIONS:
            for model in (base, tuned):
                answers.append(ask(server, model, question))
                progress.update()
    names = {
        model: ["vicuna" in answer["answer"].lower() for answer in answers if answer["model"] == model][:2]
        for model in (base, tuned)
    }
    if not all(names[tuned]) or any(names[base]):
        said = " / ".join(f"{answer['model']}: {answer['answer']}" for answer in answers[:4])
        raise VicunaError(f"asked for its name, only the tuned model should say Vicuna; they said {said}")
    return answers
