"""Kept judgments to figures and a page."""
