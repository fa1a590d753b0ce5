"""What computes the tokens of a reply: engines, which know token ids only.

- `interface`: what every engine can do, and how one is chosen by name
- `thread`: an engine in a thread of its own, beside the worker's event loop
- `native`: our own engine: which tokens of which requests make up a step
- `llama`: the forward pass of a LLaMA-family model over its key-value cache
- `llama_config`: the model's config.json, read and checked
- `sampler`: a token chosen from logits by seed and position
- `sim`: a deterministic engine without a model, for tests and load tests
"""
