"""Deltas between two models: base + delta = target, bit for bit.

- `layout`: the folder and its files' format; reading the manifest
- `pairs`: which tensor of the base a tensor of the target is a difference to
- `make`: base and target to a delta
- `makers`: the tensors' encoding, in both formats
- `codec`: exact format: one frame of numbers as compressed differences
- `bits`: bit patterns as ordered integers, zigzag and byte planes
- `magnitude_buckets`: differences grouped by the magnitude of the base's weight
- `two_bit_codes`: small differences, four to a byte
- `additive`: additive format: differences as numbers, and corrections
- `regions`: a .vdelta file while it is written
- `apply`: base and delta to a target
- `restore`: the tensors' decoding, in both formats
- `published`: additive deltas without a manifest, as they were published in 2023
"""
