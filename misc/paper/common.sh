# shellcheck shell=bash
# What the scripts of this folder share: settings, and a queue of commands that skips what is done.
# Any setting can be given in the environment: GPUS="0 1" SEEDS="0 1 2 3" bash misc/paper/01_train_cifar10_svhn.sh
if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
    echo "${0##*/}: this is bash $BASH_VERSION, and 4.4 or newer is needed; on macOS: brew install bash" >&2 && exit 2
fi
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." # all paths are relative to the repository

# Machine
: "${PYTHON:=python}"
: "${GPUS:=0}"     # one command at a time on each; "0 0 1 1" puts two on each of two GPUs, -1 is the CPU
: "${DRY_RUN:=0}"  # 1: print the commands, one a line, and run nothing
: "${WORKERS:=16}" # processes that decode ImageNet, for each command

# Data: folders as in misc/docs/methods.md, section "Data"
: "${DATA:=./data/pytorch}" # CIFAR-10 and SVHN, downloaded when they are missing
: "${CIFAR5M:=$DATA}"       # holds cifar5m/
: "${OE:=$DATA}"            # holds oe/
: "${IMAGENET:=imagenet}"   # holds training_data/ and validation_data/

# Where to write
: "${MODELS:=models/paper}"
: "${RESULTS:=results/paper}"
: "${LOGS:=$RESULTS/logs}" # what each command says

# Experiments
: "${DATASETS:=cifar10 svhn}"
: "${NETWORKS:=resnet18 vit_tiny_patch4_32}"
: "${SEEDS:=0 1}"     # of the networks that are trained
: "${PAIRS:=0-1 0-0}" # seeds of front and end network; 0-0: a network with itself
: "${RESNET_LAYERS:=layer1.0 layer1.1 layer2.0 layer2.1 layer3.0 layer3.1 layer4.0 layer4.1}"
: "${VIT_LAYERS:=$(printf 'blocks.%d ' {0..10})blocks.11}"
: "${RANKS:=512 448 384 320 256 192 128 64 32 16 8 4 2 1}" # of the sensitivity test, as in the authors' README
: "${EPOCHS:=100}"         # of base networks and of the pre-training of detectors
: "${FINETUNE_EPOCHS:=10}" # of detectors
: "${TLM_EPOCHS:=30}"      # of task loss matching
: "${DM_SAMPLES:=100}"     # of direct matching, as in the paper; auto takes as many as each pair needs
: "${METHODS:=dm tlm}"     # of the stitches that 05 evaluates
: "${OBJECTIVES:=soft hint fula feature}" # of 12, beside task loss matching
: "${FORMS:=covariance ortho}" # of 12, beside direct matching by least squares
: "${PROBE_EPOCHS:=10}"
: "${IMAGENET_EPOCHS:=90}"
: "${STAND_INS:=}" # words to replace in all commands: "cifar10=digits svhn=digits" is how smoke.sh makes them small

# shellcheck disable=SC2034 # the scripts use these tables
{
    declare -A LAYERS=([resnet18]=$RESNET_LAYERS [tv_resnet18]=$RESNET_LAYERS [vit_tiny_patch4_32]=$VIT_LAYERS)
    declare -A STITCH=([resnet18]=rc2c_pre [tv_resnet18]=rc2c_pre [vit_tiny_patch4_32]=t2t)
    declare -A DETECTOR=([resnet18]=repr_cls_resnet18 [vit_tiny_patch4_32]=repr_cls_vit_tiny)
}

case $RESULTS in
    /* | results/*) ;; # exec_stitch.py writes into results/, or to an absolute path
    *) echo "RESULTS=$RESULTS has to be an absolute path, or to begin with results/" >&2 && exit 2 ;;
esac

checkpoint() { # DATASET NETWORK SEED: the path of a trained base network
    echo "$MODELS/$1/$2/$3/model_$EPOCHS.pt"
}

QUEUE=() # commands that a shell can run, in which "-gpu GPU" stands for the GPU

todo() { # RESULT SCRIPT ARGUMENT...: queue a command, unless its result exists; RESULT is a file or a pattern
    local result=$1 line word pair
    shift
    if [[ -e $result ]] || compgen -G "$result" > /dev/null; then return; fi
    printf -v line %q "$PYTHON"
    for word in "$@"; do
        for pair in $STAND_INS; do
            if [[ $word == "${pair%%=*}" ]]; then word=${pair#*=} && break; fi
        done
        if [[ $word == *[^[:alnum:]_.,:=+/-]* || ! $word ]]; then printf -v word %q "$word"; fi
        line+=" $word"
    done
    QUEUE+=("$line")
}

run_queue() { # print the queued commands, run them, and exit; with 1 if a command failed
    local gpus i
    if [[ ${#QUEUE[@]} == 0 && $DRY_RUN == 0 ]]; then echo "${0##*/}: nothing is left to do" >&2; fi
    read -ra gpus <<< "$GPUS"
    if [[ ${#gpus[@]} == 0 ]]; then echo 'GPUS is blank; give numbers of GPUs, such as "0 1", or -1' >&2 && exit 2; fi
    for i in "${!QUEUE[@]}"; do
        echo "${QUEUE[i]/ -gpu GPU/ -gpu ${gpus[i % ${#gpus[@]}]}}" # the real run takes the GPU that is free
    done
    if [[ ${#QUEUE[@]} != 0 && $DRY_RUN == 0 ]]; then run_commands "${gpus[@]}"; fi
    exit # here, so that bash reads no more of a script that was edited in the meantime
}

run_commands() { # GPU...: run all queued commands, one at a time on each GPU; exit with 1 if one failed
    local gpu i pipe logs=() jobs=() failed=''
    mkdir -p "$LOGS"
    pipe=$(mktemp -u) # of the numbers of free GPUs
    mkfifo "$pipe"
    exec 3<> "$pipe"
    rm "$pipe"
    printf '%s\n' "$@" >&3
    set -m # each job is a process group of its own: Ctrl-C reaches this shell only, which passes it on once
    trap 'interrupt 129' HUP
    trap 'interrupt 130' INT
    trap 'interrupt 143' TERM
    for i in "${!QUEUE[@]}"; do
        read -r gpu <&3 # waits for a free GPU
        QUEUE[i]=${QUEUE[i]/ -gpu GPU/ -gpu $gpu}
        logs+=("$LOGS/$(basename "$0" .sh)-$(date +%Y%m%d-%H%M%S)-$$-$i.log")
        echo "[$((i + 1))/${#QUEUE[@]}, GPU $gpu] ${QUEUE[i]}" >&2
        run_on "$gpu" "${QUEUE[i]}" &> "${logs[i]}" < /dev/null &
        jobs+=($!)
    done
    for i in "${!jobs[@]}"; do
        wait "${jobs[i]}" || failed+="  ${QUEUE[i]}   # $(tail -n 1 "${logs[i]}"); see ${logs[i]}"$'\n'
    done
    if [[ $failed ]]; then printf 'failed:\n%s' "$failed" >&2 && exit 1; fi
}

run_on() { # GPU COMMAND: run the command, then free its GPU
    local status=0
    trap 'exit 143' TERM # when the command has ended, which gets the signal as well
    bash -c "exec $2" 3>&- || status=$?
    echo "$1" >&3
    return $status
}

interrupt() { # STATUS: end the commands that run; each saved its state after its last finished epoch
    local job
    trap '' HUP INT TERM
    echo "${0##*/}: interrupted; to resume, start it again" >&2
    for job in $(jobs -pr); do kill -TERM -- "-$job" 2> /dev/null || true; done
    wait
    exit "$1"
}
