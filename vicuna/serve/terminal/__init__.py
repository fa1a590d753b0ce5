"""The terminal chat: one conversation, and how it looks."""
