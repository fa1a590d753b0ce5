"""The terminal chat behind `vicuna chat`.

- `session`: one conversation, and what each command does to it
- `screen`: how it asks, and how a reply is shown while it grows
"""
