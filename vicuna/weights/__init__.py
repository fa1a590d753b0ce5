"""Model weights as files: checkpoints, deltas between two models, adapters, GGUF. Nothing here needs torch.

- `files`: safetensors, .bin, headers, manifests: reading, checking and writing checkpoints
- `delta`: base + delta = target, bit for bit: made, published and applied
- `tools`: cast, merge-lora, inspect, verify
- `gguf`: models of the LLaMA family as GGUF files for llama.cpp, and back
- `small_model`: SmolLM2-135M-Instruct, made once from an installed package
- `resolve`: from the name of a model to its folder: a folder, a hub id, the cache, `small-model`

The command is vicuna weights; make-delta, apply-delta, export and import are commands of their own. Training, serving
and the demo stand on this room.
"""
