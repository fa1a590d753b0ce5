"""`vicuna demo`: the whole chain on a small real model, without a key and without a GPU.

`chain.py` is the story, step by step, each step one of the public commands; `steps.py` runs them, skips what is there
already, and keeps their figures; `server.py` holds `vicuna serve` while it is chatted with and while a worker of it is
killed; `report.py` puts every figure and plot on one page.
"""
