"""Controller and workers: the frames between them, and replies that survive their worker.

- `protocol`: the frames, as JSON
- `dial`: the worker's end of a connection, dialled again whenever it ends
- `link`: the controller's end: what the worker is, and the streams that run on it
- `dispatch`: which worker gets a request, and the queue of those that wait
- `gateway`: a reply as one stream, continued by another worker when its own is lost
"""
