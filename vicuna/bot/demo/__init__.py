"""`vicuna demo`: the whole chain on a small real model, without a key and without a GPU. It begins in `__main__.py`.

- `chain`: the stages in order, from shared conversations to judged answers
- `identity_and_failover`: checks of the served models: the new name, and a reply that survives its worker's death
- `report`: the page with every figure and plot
- `examples`: what of its data the page shows: an answer before and after cleaning, a prompt, a pair of answers
"""
