"""The chat page in the browser: `python -m vicuna.serve.web`."""
