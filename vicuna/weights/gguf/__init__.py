"""Models of the LLaMA family as GGUF, the file format of llama.cpp, GPT4All, Ollama and LM Studio; and back.

- `types`: block types, and which tensor gets which in a file of a given type
- `container`: a file's header, read and checked; writing files as streams
- `names`: tensor names in Hugging Face models and in GGUF, and the order of the rows of q and k
- `config`: the values of config.json that matter, checked
- `config_to_gguf`: config.json to metadata
- `config_from_gguf`: metadata to config.json
- `vocabulary`: tokenizer files to metadata, and back
- `card`: name, licence and source of a model
- `quantize`: numbers to block types, and back
- `to_gguf`: a Hugging Face folder to a file
- `from_gguf`: a file to a Hugging Face folder
- `llama_cpp`: a file run by llama.cpp
- `reference`: the model run by transformers
- `check`: a file's tokens and probabilities compared with the model's
"""
