"""What a run writes: checkpoints to resume from, the trained model, the adapter.

- `output`: the output directory, of one run, locked
- `checkpoint`: the format of a checkpoint; writing and loading one
- `saver`: checkpoints written while training goes on
- `export`: the trained model as a Hugging Face directory
- `adapter`: the adapter of a LoRA run
"""
