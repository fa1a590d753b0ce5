"""Engines: what turns token ids into the next ones. One interface (`interface.py`), each engine in its own file."""
