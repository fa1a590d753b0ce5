"""Fine-tuning on conversations. `python -m vicuna.train` begins in `__main__.py`; the training loop is `loop.py`.

What happens, in order:

1. `config`: flags and config file become one frozen `TrainOptions`.
2. `tokenize`: records (`samples`) become token ids with a mask of what is to be learned, the assistant's replies, and
   are kept for the next run (`token_cache`).
3. `packing`: whole conversations share rows; the plan of an epoch is a pure function of lengths, seed and epoch.
4. `ranks`, `model`: the processes meet; the LLaMA-architecture model, with `attention` (documents in a row see nothing
   of each other but a beginning that they share), `fused` and `loss`, is cut over them (`parallel`), and each reads its
   own rows.
5. `checkpoint`: the newest whole checkpoint is taken up, if there is one; `saver` writes new ones in the background.
6. `loop`: for each step its rows (`dataset`), forward, backward, optimizer; `evaluate`, `metrics` and checkpoints.
7. `export`: a Hugging Face directory with the base's tokenizer and the template the model was trained with.
"""
