"""A client of any OpenAI-compatible server, for the page and the terminal."""
