"""Statistics with numpy only, for the evaluation and the arena.

- `intervals`: means and paired differences over questions, with bootstrap intervals
"""
