"""What `train_gpu.py` measures beside ours: the logits of every token, and attention with one mask over the row."""

from typing import Any

import torch
import torch.nn.functional as F

from vicuna.conversation import IGNORE_INDEX
from vicuna.train.batches.dataset import Batch
from vicuna.train.batches.documents import Documents
from vicuna.train.model.conversation_model import ConversationModel


def all_logits(model: ConversationModel, batch: Batch) -> torch.Tensor:
    """The loss as transformers computes it: the logits of every token, in fp32."""
    logits = model.causal_lm.lm_head(model.hidden_states(batch)).float()
    return F.cross_entropy(logits, batch.labels, ignore_index=IGNORE_INDEX, reduction="sum")


def dense_attention(
    _module: Any, query: Any, key: Any, value: Any, _mask: Any, *, documents: Documents, scaling: float, **_unused: Any
) -> tuple[torch.Tensor, None]:
    """Attention with one (T, T) mask over the row."""
    lengths = torch.tensor(documents.lengths, device=query.device)
    number = torch.repeat_interleave(torch.arange(len(lengths), device=query.device), lengths)
    mask = (number[:, None] == number[None, :]).tril()
    query, key = query.to(value.dtype), key.to(value.dtype)
    output = F.scaled_dot_product_attention(query, key, value, mask, scale=scaling, enable_gqa=True)
    return output.transpose(1, 2), None
