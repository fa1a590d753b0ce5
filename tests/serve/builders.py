"""Records that several tests need, with defaults for all that a test does not ask about."""

from typing import Any

from vicuna.serve.fleet.link import WorkerLink
from vicuna.serve.fleet.protocol import Hello
from vicuna.serve.sampling import Sampling

MESSAGES = [{"role": "user", "content": "hello"}]


def make_sampling(temperature: float = 1.0, top_p: float = 1.0, top_k: int = 0, seed: int = 0) -> Sampling:
    """Every token may be chosen, unless told otherwise."""
    return Sampling(temperature=temperature, top_p=top_p, top_k=top_k, seed=seed)


def make_link(
    name: str = "w", *, model: str = "m", max_slots: int = 2, fingerprint: str = "f", **more: Any
) -> WorkerLink:
    """The connection of a worker that has said hello."""
    hello = Hello(
        worker_id=name, host="h", pid=1, model=model, fingerprint=fingerprint, engine="sim", template="plain",
        context_size=64, max_slots=max_slots, **more,
    )  # fmt: skip
    return WorkerLink(hello)
