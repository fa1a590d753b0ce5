"""The model in training: attention over packed rows, the loss, adapters, shards over ranks."""
