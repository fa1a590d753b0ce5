#!/usr/bin/env bash
# The Vicuna recipe for a 13B model, on 8 GPUs of 80 GB.
set -euo pipefail
# shellcheck source=scripts/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

USAGE="usage: [GPUS=8] scripts/train_13b.sh MODEL DATA OUTPUT [FLAGS of python -m vicuna.train]

  MODEL   a LLaMA of 13B parameters: a Hugging Face directory
  DATA    records.jsonl, from python -m vicuna.data --max-tokens 2048
  OUTPUT  receives model/ and the checkpoints; the same line again goes on from the newest

  scripts/train_13b.sh llama-13b records.jsonl vicuna-13b --plan --gpu a100-80gb:8
      memory, hours and dollars before anything is rented
  NNODES=2 NODE_RANK=0 MASTER=10.0.0.1:29500 scripts/train_13b.sh ...
      on each of two machines
  UNPACKED=1 scripts/train_13b.sh ...
      exactly 128 conversations in every step, each in a row of its own
  DRY_RUN=1 scripts/train_13b.sh ...
      the command, and nothing else"

flags=(
    # Published with the model: FastChat README, section Fine-tuning (hyperparameters of Vicuna-7B and -13B): global
    # batch 128 conversations, learning rate 2e-5, 3 epochs, 2,048 tokens, weight decay 0; its train.py flags add
    # cosine with warm-up 0.03.
    --learning-rate 2e-5
    --num-train-epochs 3
    --max-length 2048
    --weight-decay 0
    --warmup-ratio 0.03
    --bf16
    --save-steps 200
)
# The batch. 128 conversations of ShareGPT, cut to 2,048 tokens, have about 131,000 tokens: 32 full rows of 4,096.
if [ -n "${UNPACKED:-}" ]; then
    flags+=(--no-packing --rows-per-step 128)
else
    flags+=(--row-length 4096 --rows-per-step 32)
fi
recipe "$USAGE" 8 "$@" --END-- "${flags[@]}"
