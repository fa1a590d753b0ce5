"""Deltas: base + delta = target, bit for bit."""
