"""The optimizer and the learning rate.

- `schedule`: the number of steps, and the learning rate of each
- `optimizer`: AdamW, with weight decay on matrices
- `adam8bit`: AdamW with moments of 8 bits
"""
