"""Records to batches: token ids with labels, kept on disk, packed into rows, made tensors.

- `encode`: one record to token ids and which of them are supervised
- `tokenize`: all records of a run, by several processes
- `token_cache`: the examples in memory or in mapped files
- `packing`: which examples share a row, and which rows make a step
- `documents`: the bounds of a batch's documents, and their shared prefixes
- `dataset`: rows to the tensors of a batch
"""
