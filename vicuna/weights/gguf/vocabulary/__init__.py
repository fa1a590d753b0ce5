"""A model's tokenizer as GGUF metadata, and back."""
