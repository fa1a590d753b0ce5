"""Checkpoint files: finding, reading, checking, describing and writing them.

- `tensors`: one safetensors file's header, and how a model is split into shards
- `pickle_program`: a state dict's pickle, interpreted without calling anything
- `pickled`: one .bin file of PyTorch
- `checkpoint`: a whole model, single or sharded, as a stream
- `numbers`: dtypes and exact, reproducible casts between them
- `threads`: a map on a few threads
- `manifest`: the hashes of a delta or a model, tensor by tensor
- `detect`: tells a delta from a model
- `hub`: a folder by hub id
- `unfinished`: an output folder that a killed run leaves to the next
- `shard_writer`: shards written and hashed tensor by tensor
- `other_files`: tokenizer, configuration and licence beside the weights
- `new_model`: a whole model folder with manifest
"""
