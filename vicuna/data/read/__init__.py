"""Input files to records: bytes cut into values, values parsed, their shape recognised."""
