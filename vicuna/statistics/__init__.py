"""Statistics with numpy only, for the evaluation and the arena: intervals over questions."""
