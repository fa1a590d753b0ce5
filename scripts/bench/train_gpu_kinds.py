"""The ways to do a training step that `train_gpu.py` compares."""

from dataclasses import dataclass
from typing import Literal, get_args

Checkpointing = Literal["none", "selective", "full"]
CHECKPOINTING: tuple[Checkpointing, ...] = get_args(Checkpointing)


@dataclass(frozen=True)
class Kind:
    """One way to do a step.

    Args:
        attention: "varlen", per document; or "dense", one mask over the row.
        loss: "fused", ours; or "logits", all of them and cross-entropy.
        compiled: layer by layer.
        checkpointing: none, selective or full.
        sharded: through FSDP, in a group of one, as on many GPUs; else by autocast.
    """

    attention: str = "varlen"
    loss: str = "fused"
    compiled: bool = False
    checkpointing: Checkpointing = "none"
    sharded: bool = False

    def __str__(self) -> str:
        words = [self.attention, self.loss, "compiled" if self.compiled else "eager", self.checkpointing]
        return " ".join([*words, "fsdp"] if self.sharded else words)


COMPILED = Kind(compiled=True)
ONE_BY_ONE = [
    *(Kind(), COMPILED, Kind(attention="dense"), Kind(loss="logits"), Kind(checkpointing="selective")),
    *(Kind(checkpointing="full"), Kind(compiled=True, checkpointing="full"), Kind(sharded=True)),
    *(Kind(compiled=True, sharded=True), Kind(attention="dense", loss="logits")),
]
GRID = [
    Kind(attention_name, loss, compiled, checkpointing)
    for attention_name in ("varlen", "dense")
    for loss in ("fused", "logits")
    for compiled in (False, True)
    for checkpointing in CHECKPOINTING
    if not (compiled and checkpointing == "selective")  # which the options refuse
]
