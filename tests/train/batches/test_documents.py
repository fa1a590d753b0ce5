"""The bounds of documents, their keys with shared prefixes, and the blocks of attention."""

import torch

from vicuna.train.batches.documents import Block, Documents


def test_without_shared_prefixes_documents_lie_end_to_end() -> None:
    documents = Documents.of((3, 2))
    assert documents.cu_seqlens.tolist() == documents.cu_seqlens_keys.tolist() == [0, 3, 5]
    assert documents.cu_seqlens.dtype == torch.int32
    assert documents.key_indices is None
    assert documents.keys == [(slice(0, 0), slice(0, 3)), (slice(3, 3), slice(3, 5))]
    assert documents.longest == 3
    assert documents.blocks() == [Block(slice(0, 3), slice(0, 3), True), Block(slice(3, 5), slice(3, 5), True)]


def test_a_shared_prefix_is_part_of_the_keys_of_each_document() -> None:
    documents = Documents.of((4, 2, 3), shared=(0, 2, 2))
    assert documents.cu_seqlens.tolist() == [0, 4, 6, 9]
    assert documents.cu_seqlens_keys.tolist() == [0, 4, 8, 13]
    assert documents.key_indices is not None
    assert documents.key_indices.tolist() == [0, 1, 2, 3, 0, 1, 4, 5, 0, 1, 6, 7, 8]
    assert documents.longest == 5
    # The documents that share are one block of queries for the prefix.
    assert documents.blocks()[3:] == [Block(slice(4, 9), slice(0, 2), False)]


def test_a_query_span_attends_to_itself_and_to_what_is_before_it_in_its_document() -> None:
    documents = Documents.of((5, 4), shared=(0, 3))
    causal, earlier, prefix = documents.blocks([slice(7, 9)])
    assert causal == Block(slice(0, 2), slice(7, 9), True)
    assert earlier == Block(slice(0, 2), slice(5, 7), False)
    assert prefix == Block(slice(0, 2), slice(0, 3), False)
    assert documents.blocks([]) == []
