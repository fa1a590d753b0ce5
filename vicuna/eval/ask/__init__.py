"""Asking a model behind an OpenAI-compatible server, many calls at once, none paid twice."""
