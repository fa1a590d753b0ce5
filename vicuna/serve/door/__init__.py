"""The door of every server of ours: what a request must be before anything looks into it.

- `connection`: bytes of a connection: as much of a request's head as may be, and connections at once
- `hosts`: the names that a server answers to, and the pages that may ask it
- `json_shape`: nesting and number of the parts of a JSON text, counted before it is parsed
- `bodies`: bodies of bounded size, and of bounded weight together
- `guard`: the one guard, in front of API, page and worker connections
"""
