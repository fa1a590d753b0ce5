"""Chains of commands that turn conversations into a served and judged chatbot.

- `demo`: `vicuna demo`: the whole chain on a small real model
- `stages`: stages that are run once and skipped when their outputs are intact
- `server`: a `vicuna serve` process under a chain
- `memory`: the peak memory of a process and its descendants
"""
