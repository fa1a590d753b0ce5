"""Records to batches: token ids with labels, kept on disk, packed into rows, made tensors."""
