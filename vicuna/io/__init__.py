"""Input and output below all rooms: files, JSON lines, standard streams, messages.

- `files`: atomic files and folders, hashes, free space
- `jsonl`: JSON and JSON lines
- `streams`: standard streams that may be closed, full or without a reader
- `log`: messages and progress on stderr
- `network`: whether a host is this machine
"""
