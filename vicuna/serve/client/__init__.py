"""A client of any OpenAI-compatible server, for the chat page and the terminal chat.

- `address`: the address of the API, checked
- `http`: the models that are alive, and one streamed reply
- `reply`: a reply while it grows: its text, how it ended, its speed
- `transcript`: conversations as files and in the browser's storage
"""
