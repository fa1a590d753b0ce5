"""`vicuna demo`: the whole chain on a small real model, without a key and without a GPU."""
