"""Private data in conversations: what it looks like, and the step that takes it out."""

from vicuna.data.privacy.step import find

__all__ = ["find"]
