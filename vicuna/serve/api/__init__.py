"""The OpenAI-compatible HTTP API.

- `openai`: the routes, from a request to its stream of events
- `schema`: the request bodies; a field that would be ignored is refused
- `answer`: answers, chunks and errors as JSON
"""
