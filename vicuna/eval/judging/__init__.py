"""Judging answers: the calls, the prompts, the judge."""
