"""Tools on whole checkpoints and adapters.

- `cast`: another dtype, other shards, .bin to safetensors
- `adapter`: reading and checking a LoRA adapter
- `lora`: merging one into its base
- `inspect`: facts about a model, a delta or an adapter
- `verify`: hashes of a model or a delta compared with a manifest
"""
