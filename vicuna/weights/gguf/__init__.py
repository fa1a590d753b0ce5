"""Models as GGUF, the one file that llama.cpp, GPT4All, Ollama and LM Studio read; and back.

types           block types, and which tensor gets which in a file of a given type
container       a file's header, checked before it is believed; a writer that streams
quantize        numbers into blocks and back
names           tensor names in both worlds, the row order of q and k
config          config.json -> metadata;         hub_config     metadata -> config.json
vocabulary      tokenizer files -> metadata;     tokenizer      metadata -> tokenizer files
pre_tokenizers  how byte-level BPE cuts text, in both worlds
card            name, licence and source of a model
export          a Hugging Face folder -> a file; convert        a file -> a Hugging Face folder
llama_cpp       the file served by llama.cpp, to ask it for tokens and probabilities
check           does the file still answer as the model does?
"""
