"""Input and output below all rooms: files, JSON lines, standard streams, messages, markup.

- `files`: atomic files and folders, hashes, free space
- `jsonl`: JSON and JSON lines
- `streams`: standard streams that may be closed, full or without a reader
- `log`: messages and progress on stderr
- `markup`: text to HTML and SVG, by one autoescaping engine
- `locks`: locks between processes
- `machine`: cores and memory that this process may use
- `network`: whether a host is this machine
"""
