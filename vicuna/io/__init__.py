"""Input and output below all rooms: files, JSON lines, standard streams, messages, markup.

- `files`: atomic files and folders, hashes, free space; files and names that others may have planted
- `jsonl`: JSON and JSON lines
- `unpack`: gzip and Zstandard files in constant memory, within a ratio
- `streams`: standard streams that may be closed, full or without a reader
- `terminal`: the one way to a terminal or log, which shows what would steer or hide
- `secrets`: secrets that do not print themselves, and their removal from texts
- `log`: messages and progress on stderr
- `markup`: text to HTML and SVG, by one autoescaping engine
- `model_files`: the small files of a model's folder, read within limits
- `locks`: locks between processes
- `machine`: cores and memory that this process may use
- `network`: whether a host is this machine
"""
