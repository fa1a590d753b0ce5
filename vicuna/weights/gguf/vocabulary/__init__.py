"""A model's tokenizer as GGUF metadata, and back.

- `tokenizer_files`: added and special tokens, chat templates, out of a folder's JSON files
- `pre_tokenizers`: how byte-level BPE splits text, as regular expressions and by llama.cpp's names
- `to_gguf`: tokenizer files to metadata
- `from_gguf`: metadata to tokenizer files
"""
