"""What is observed while a model trains.

- `metrics`: the log of a run, its charts and generations on disk
- `reporters`: the log to TensorBoard and Weights & Biases
- `evaluate`: the held-out loss
- `generations`: greedy replies to a few prompts
- `guard`: losses that are not finite, and spikes, stop the run before the update
"""
