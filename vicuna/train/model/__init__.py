"""The model in training: attention over packed rows, the loss, adapters, shards over ranks.

- `conversation_model`: a transformers decoder that turns a batch into a loss; its weights read from files
- `attention`: attention within documents, by the kernel of the device
- `blockwise`: attention on a CPU as a sum over blocks
- `fused`: RMSNorm, SwiGLU and rotary embedding as fused functions
- `loss`: fused output head and cross-entropy
- `lora`: LoRA and QLoRA adapters
- `activation`: activation checkpointing and compilation of the layers
- `parallel`: sharding over ranks by FSDP
- `wrapping`: adapters, compilation, checkpointing and sharding in the order in which they work
- `flops`: floating-point operations of training
- `allocator`: settings of malloc for a CPU
"""
