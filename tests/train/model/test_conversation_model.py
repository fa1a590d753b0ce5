"""Packed rows give what each document gives by itself: losses, gradients, and no attention across documents."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from tests.train.builders import MakeOptions, save_llama
from vicuna.conversation import IGNORE_INDEX
from vicuna.errors import VicunaError
from vicuna.train.batches.dataset import Batch, ConversationDataset
from vicuna.train.batches.documents import Documents
from vicuna.train.loop import train
from vicuna.train.model.conversation_model import (
    ConversationModel,
    _finish_modules,
    _give_memory,
    build_model,
    load_model,
    model_fingerprint,
    read_config,
)


def test_a_base_whose_weights_have_other_names_is_refused_before_training(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = save_llama(tmp_path / "base", bpe_tokenizer_directory, tie_word_embeddings=True)
    tensors = {name.removeprefix("model."): t for name, t in load_file(base / "model.safetensors").items()}
    save_file(tensors, base / "model.safetensors", {"format": "pt"})
    with pytest.raises(VicunaError, match=r"stores .* under another name"):
        train(make_options(model=base))


def test_weights_of_another_shape_are_named(
    make_options: MakeOptions, tmp_path: Path, bpe_tokenizer_directory: Path
) -> None:
    wide = save_llama(tmp_path / "wide", bpe_tokenizer_directory)
    config = json.loads((wide / "config.json").read_text())
    (wide / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(VicunaError, match=r"down_proj.weight is \[32, 48\], its config.json wants \[32, 64\]"):
        train(make_options(model=wide))


ROW = (0, 1, 2, 3)


def token_losses(model: ConversationModel, batch: Batch) -> torch.Tensor:
    logits = model.hidden_states(batch) @ model.causal_lm.lm_head.weight.T
    return torch.nn.functional.cross_entropy(logits, batch.labels, ignore_index=IGNORE_INDEX, reduction="none")


def reference_loss(path: Path, dataset: ConversationDataset, item: int) -> torch.Tensor:
    """transformers' own loss of one document, summed."""
    batch = dataset.batch([(item,)])
    labels = torch.where(dataset.conversations.is_supervised, dataset.conversations.input_ids.long(), IGNORE_INDEX)
    end = sum(dataset.conversations.lengths[: item + 1])
    labels = labels[end - dataset.conversations.lengths[item] : end].unsqueeze(0)
    output = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)(batch.input_ids, labels=labels)
    loss: torch.Tensor = output.loss * batch.num_supervised
    return loss


def test_packed_losses_equal_those_of_each_document_alone(
    model: ConversationModel, dataset: ConversationDataset
) -> None:
    with torch.no_grad():
        packed = token_losses(model, dataset.batch([ROW]))
        alone = torch.cat([token_losses(model, dataset.batch([(item,)])) for item in ROW])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_the_last_layer_ends_with_the_supervised_tokens_alone(
    model: ConversationModel, dataset: ConversationDataset
) -> None:
    batch = dataset.batch([ROW])
    seen: list[int] = []  # tokens that go through the last layer's MLP
    mlp = model.causal_lm.model.layers[-1].mlp
    mlp.register_forward_hook(lambda _module, args, _output: seen.append(args[0].shape[1]))
    loss = model(batch)
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_weights().items() if weight.grad is not None}
    model.zero_grad()
    expected = token_losses(model, batch).sum()
    expected.backward()
    assert seen == [batch.num_supervised, batch.input_ids.shape[1]] and seen[0] < seen[1]
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=1e-5)
    for name, weight in model.named_weights().items():
        torch.testing.assert_close(found[name], weight.grad, rtol=1e-4, atol=1e-5)


def test_packed_gradients_equal_the_sum_over_documents(model: ConversationModel, dataset: ConversationDataset) -> None:
    model(dataset.batch([ROW[:2], ROW[2:]])).backward()
    packed = {name: weight.grad for name, weight in model.named_weights().items()}
    model.zero_grad()
    for item in ROW:
        model(dataset.batch([(item,)])).backward()
    for name, weight in model.named_weights().items():
        assert packed[name] is not None
        assert (packed[name] - weight.grad).norm() / weight.grad.norm() < 1e-4, name


def test_loss_equals_that_of_transformers(
    model: ConversationModel, dataset: ConversationDataset, tiny_model: Path
) -> None:
    with torch.no_grad():
        expected = sum(reference_loss(tiny_model, dataset, item) for item in ROW)
        torch.testing.assert_close(model(dataset.batch([ROW])), expected, rtol=1e-5, atol=1e-5)


LLAMA_3 = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}

ARCHITECTURES: list[tuple[type[PretrainedConfig], dict[str, Any]]] = [
    (LlamaConfig, {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    (LlamaConfig, {"rope_parameters": {**LLAMA_3, "original_max_position_embeddings": 64}}),
    (MistralConfig, {"sliding_window": None}),
    (MistralConfig, {"sliding_window": 20}),
    (Qwen2Config, {"tie_word_embeddings": True}),
    (Qwen2Config, {"use_sliding_window": True, "sliding_window": 20, "max_window_layers": 1}),
    (Qwen3Config, {"head_dim": 16}),
    (SmolLM3Config, {"pad_token_id": None}),
]


@pytest.mark.parametrize(("kind", "changes"), ARCHITECTURES)
def test_every_architecture_computes_as_transformers_does(
    kind: type[PretrainedConfig], changes: dict[str, Any], tmp_path: Path, dataset: ConversationDataset
) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    ids = {"vocab_size": 1500, "bos_token_id": 0, "eos_token_id": 0}
    config = kind(num_key_value_heads=2, **(shape | ids | changes))
    torch.manual_seed(1)
    theirs = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for name, weight in theirs.named_parameters():
        if weight.ndim == 2 or "bias" in name:
            torch.nn.init.normal_(weight, std=0.15)
    theirs.save_pretrained(tmp_path)
    ours = load_model(tmp_path, read_config(tmp_path), torch.device("cpu"))
    with torch.no_grad():
        batch = dataset.batch([ROW])
        assert max(batch.documents.lengths) > 40  # longer than the window
        hidden = ours.hidden_states(batch) @ ours.causal_lm.lm_head.weight.T
        alone = torch.cat([theirs(dataset.batch([(item,)]).input_ids).logits[0] for item in ROW])
    torch.testing.assert_close(hidden, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "changes"), ARCHITECTURES)
def test_shared_prefixes_and_skipped_queries_change_nothing(
    kind: type[PretrainedConfig], changes: dict[str, Any], dataset: ConversationDataset
) -> None:
    """Loss and gradients where documents share prefixes and the last layer has queries for the labels only."""
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    ids = {"vocab_size": 1500, "bos_token_id": 0, "eos_token_id": 0}
    model = build_model(kind(num_key_value_heads=2, **(shape | ids | changes)))
    _give_memory(model, torch.device("cpu"))
    _finish_modules(model.causal_lm, torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.15, generator=generator)
    model = model.double()
    batch = ConversationDataset(dataset.conversations, dataset.device, share_prefix=True).batch([ROW])
    assert sum(batch.documents.shared) > 60
    loss = model(batch)
    loss.backward()
    found = {name: weight.grad for name, weight in model.named_weights().items()}
    model.zero_grad()
    expected = token_losses(model, dataset.batch([ROW])).sum()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for name, weight in model.named_weights().items():
        assert (found[name] - weight.grad).norm() / weight.grad.norm() < 1e-6, name  # norms and angles are fp32


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_no_token_attends_to_another_document(
    model: ConversationModel, dataset: ConversationDataset, changed: int
) -> None:
    batch = dataset.batch([ROW])
    bounds = [0, *batch.documents.cu_seqlens.tolist()[1:]]
    start, end = bounds[changed], bounds[changed + 1]
    before = model.hidden_states(batch).detach().clone()
    batch.input_ids[0, start:end] = (batch.input_ids[0, start:end] + 7) % 1000
    after = model.hidden_states(batch).detach()
    assert not torch.equal(before[start:end], after[start:end])
    assert torch.equal(before[:start], after[:start])
    assert torch.equal(before[end:], after[end:])


def test_no_token_attends_to_a_later_one(model: ConversationModel, dataset: ConversationDataset) -> None:
    batch = dataset.batch([(0,)])
    before = model.hidden_states(batch).detach().clone()
    batch.input_ids[0, -1] += 1
    after = model.hidden_states(batch).detach()
    torch.testing.assert_close(before[:-1], after[:-1], rtol=0, atol=0)
    assert not torch.equal(before[-1], after[-1])


def test_bounds_that_do_not_cover_the_batch_are_refused(model: ConversationModel, dataset: ConversationDataset) -> None:
    batch = dataset.batch([ROW])
    short = Batch(batch.input_ids, batch.position_ids, batch.labels, Documents.of((3,)), 1, batch.ids)
    with pytest.raises(AssertionError, match="do not cover"):
        model(short)


def test_missing_weights_are_named_instead_of_drawn_at_random(tmp_path: Path, bpe_tokenizer_directory: Path) -> None:
    path = save_llama(tmp_path / "model", bpe_tokenizer_directory)
    from safetensors.torch import load_file, save_file

    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(VicunaError, match=r"lacks 1 weights, the first is .*up_proj"):
        load_model(path, read_config(path), torch.device("cpu"))


def test_fingerprint_tells_models_apart(tmp_path: Path, tiny_model: Path, bpe_tokenizer_directory: Path) -> None:
    other = save_llama(tmp_path / "other", bpe_tokenizer_directory, seed=1)
    same = save_llama(tmp_path / "same", bpe_tokenizer_directory, seed=0)
    assert model_fingerprint(other) != model_fingerprint(tiny_model) == model_fingerprint(same)
