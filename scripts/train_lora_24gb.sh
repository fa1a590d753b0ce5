#!/usr/bin/env bash
# LoRA on one GPU of 24 GB: a 7B model in bfloat16; with --qlora 13B, its weights as 4-bit numbers.
set -euo pipefail
# shellcheck source=scripts/recipe.sh
source "$(dirname "${BASH_SOURCE[0]}")/recipe.sh"

USAGE="usage: scripts/train_lora_24gb.sh MODEL DATA OUTPUT [FLAGS of python -m vicuna.train]

  MODEL   a LLaMA of up to 7B parameters, or of 13B with --qlora: a Hugging Face directory
  DATA    records.jsonl, from python -m vicuna.data --max-tokens 2048
  OUTPUT  receives adapter/ and the checkpoints; the same line again goes on from the newest

  scripts/train_lora_24gb.sh llama-7b records.jsonl out                the 7B model
  scripts/train_lora_24gb.sh llama-13b records.jsonl out --qlora       the 13B model
  vicuna weights merge-lora --base llama-7b --adapter out/adapter --target vicuna-7b

  needs pip install 'vicuna-kit[lora]', for --qlora 'vicuna-kit[qlora]'; DRY_RUN=1 prints the command and does nothing"

flags=(
    --lora
    # QLoRA (arXiv:2305.14314), section 4 and appendix B: adapters at every linear layer, learning rate 2e-4 for 7B and
    # 13B; its rank was 64, and it saw no difference from 8 to 256 where all layers have one.
    --learning-rate 2e-4
    --lora-r 16
    --lora-alpha 32
    # As the recipe of the whole model (scripts/train_7b.sh); one GPU takes the rows of a step one after the other.
    --num-train-epochs 3
    --max-length 2048
    --weight-decay 0
    --warmup-ratio 0.03
    --row-length 2048
    --rows-per-step 64
    --bf16
    # 7B in bfloat16 take 13.5 GB; what a row of 2,048 tokens would keep takes more than the rest.
    --activation-checkpointing full
    --save-steps 50
)
recipe "$USAGE" 1 "$@" --END-- "${flags[@]}"
