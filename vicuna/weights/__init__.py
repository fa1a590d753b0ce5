"""Model weights as files: reading and writing checkpoints, deltas between two models, the small model.

    checkpoint   Hugging Face checkpoints, streamed: a few MiB in memory whatever the model's size
    pickled      PyTorch's `.bin` files, without running anything in them
    codec        one frame of a delta: the difference of two runs of bit patterns, compressed
    delta        make and apply: base + delta = target, bit for bit, with every hash checked
    detect       is this folder a model or only a delta?
    gguf         models of the LLaMA family as GGUF files for llama.cpp, and back
    small_model  SmolLM2-135M-Instruct, made once from an installed package

Nothing here needs torch. Comes after `vicuna.conversation`; training, serving and the demo stand on it.
"""
