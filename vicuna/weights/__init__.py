"""Model weights as files: reading and writing checkpoints, deltas between two models, adapters, the small model.

Reading: `checkpoint` streams a Hugging Face model, a few MiB in memory whatever its size; `shard` is one safetensors
file, `pickled` one `.bin` file (with `pickle_program`, which runs nothing), `hub` fetches what is not here, `detect`
tells a delta from a model.

Deltas (base + delta = target, bit for bit):

    delta        the folder's layout, and reading it with every claim checked; `manifest` has all the hashes
    pairs        which tensor of the base a target's is the difference to
    codec        exact: differences of bit patterns, compressed; `additive`: differences of numbers, and corrections
    make         base and target in, delta out, with `makers`
    apply        base and delta in, target out, verified, with `restore`; `published` for deltas without a manifest

Other models: `cast` (numbers, files), `lora` (with `adapter`), both in the frame of `model`. `verify` proves, `inspect`
tells. `output` and `regions` write, and `unfinished` lets a killed run go on.

    gguf         models of the LLaMA family as GGUF files for llama.cpp, and back
    small_model  SmolLM2-135M-Instruct, made once from an installed package

Nothing here needs torch. Comes after `vicuna.conversation`; training, serving and the demo stand on it.
"""
