"""Whole chains of commands: what turns conversations into a served and judged chatbot in one go."""
