"""Bytes and text in and out of the process: standard streams, files that appear whole, JSON lines, log and progress."""
