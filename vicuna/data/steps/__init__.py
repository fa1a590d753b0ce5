"""The steps of the cleaning: each a pure function from a record to what becomes of it."""
