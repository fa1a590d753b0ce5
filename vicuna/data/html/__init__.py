"""A chat page's HTML turned back into the Markdown that the model wrote."""
