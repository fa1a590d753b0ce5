"""Checkpoint files: reading, writing, describing and finding them."""
