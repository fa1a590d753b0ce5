# shellcheck shell=bash
# What the recipes share: their arguments, and the one line that starts a run. Sourced by scripts/train_*.sh.

# The interpreter: $PYTHON, else that of the checkout, else python3.
python_of_recipe() {
    local here
    here="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    if [ -n "${PYTHON:-}" ]; then
        echo "$PYTHON"
    elif [ -x "$here/.venv/bin/python" ]; then
        echo "$here/.venv/bin/python"
    else
        command -v python3
    fi
}

# recipe USAGE DEFAULT_GPUS ARGUMENTS... -- FLAGS...: MODEL, DATA and OUTPUT from the arguments, what follows them last.
recipe() {
    local usage=$1 gpus=${GPUS:-$2}
    shift 2
    local arguments=() flags=()
    while [ "$1" != "--END--" ]; do
        arguments+=("$1")
        shift
    done
    shift
    flags=("$@")
    case "${arguments[0]:-}" in
        "" | -h | --help)
            printf '%s\n' "$usage"
            [ -n "${arguments[0]:-}" ] && return 0
            return 2
            ;;
    esac
    if [ "${#arguments[@]}" -lt 3 ]; then
        printf 'give MODEL, DATA and OUTPUT\n\n%s\n' "$usage" >&2
        return 2
    fi
    local model=${arguments[0]} data=${arguments[1]} output=${arguments[2]} more=("${arguments[@]:3}")
    local command=("$(python_of_recipe)")
    # A plan needs no GPU; a run takes one process for each.
    if [[ " ${more[*]:-} " != *" --plan "* ]] && { [ "$gpus" -gt 1 ] || [ "${NNODES:-1}" -gt 1 ]; }; then
        command+=(-m torch.distributed.run --nproc-per-node "$gpus" --nnodes "${NNODES:-1}")
        if [ "${NNODES:-1}" -gt 1 ]; then
            command+=(--node-rank "${NODE_RANK:?the number of this machine, from 0}")
            command+=(--rdzv-backend c10d --rdzv-endpoint "${MASTER:?address:port of machine 0}" --rdzv-id vicuna)
        fi
        # Time for the checkpoint of a stop (30 s by default), which SIGUSR1 asks for as well as SIGTERM.
        export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}"
        export PET_SIGNALS_TO_HANDLE="${PET_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1}"
        # A rank that dies takes the others with it; torchrun starts them again, from the newest checkpoint.
        command+=(--max-restarts "${MAX_RESTARTS:-3}")
    fi
    command+=(-m vicuna.train --model "$model" --data "$data" --output-dir "$output")
    command+=("${flags[@]}" ${more[@]+"${more[@]}"})
    printf '%q ' "${command[@]}" >&2
    printf '\n' >&2
    [ -n "${DRY_RUN:-}" ] || exec "${command[@]}"
}
