#!/usr/bin/env bash
# Which measure can be believed? Networks that differ by an intervention, five a group; ten clean seeds; and impostors.
# Three stages, each of which waits for the one before: networks, all pairs within each test, scores.
# TRUTH=cifar100 has ReSi's settings (ResNet-18); with TRUTH_DATA=FOLDER they are those for a subset of ImageNet.
# TRUTH=digits is the same in small, on the CPU. TRUTH_RUN=1 repeats all with other seeds, in folders of its own.
TRUTH=${TRUTH:-cifar100}
if [[ $TRUTH == digits ]]; then
    : "${GPUS:=-1 -1}"  # two processes on the CPU
    : "${WORKERS:=0}"
    export OMP_NUM_THREADS=1
fi
source "$(dirname "$0")/common.sh"
if [[ $TRUTH == digits ]]; then
    : "${TRUTH_DATA:=digits}"
    : "${TRUTH_NETWORK:=small_cnn}"
    : "${TRUTH_LAYERS:=pool2 pool3 pool4}"
    : "${TRUTH_GROUP_LAYERS:=pool3 pool4}"
    : "${TRUTH_EPOCHS:=10}"
    : "${TRUTH_METHODS:=pinv covariance task:2}"
    training=(-b 32 -lr 0.003)
    matching=(-pinv-samples 1437 --pinv-cutoff exact -lr 0.01)
    frozen=()
    declare -A STRENGTHS=([label_noise]="0.5 0.75" [shortcut]="0 1" [image_noise]="4000")
else
    : "${TRUTH_DATA:=cifar100}"
    : "${TRUTH_NETWORK:=resnet18}"
    : "${TRUTH_LAYERS:=$RESNET_LAYERS}"
    : "${TRUTH_GROUP_LAYERS:=$TRUTH_LAYERS}"
    : "${TRUTH_EPOCHS:=200}"
    : "${TRUTH_METHODS:=pinv covariance repair task:10}" # as misc/all_pairs.py --methods takes them
    training=(-b 128 -o sgd -lr 0.1 -sched cosine -wd 5e-4)
    matching=(-b 128 -pinv-samples auto --pinv-cutoff exact)
    frozen=(--pooled)
    declare -A STRENGTHS=([label_noise]="0.5 0.75" [shortcut]="0 0.75 1" [image_noise]="1000 2000 4000")
fi
: "${TRUTH_ROOT:=$DATA}" # a folder of its own for a subset of ImageNet
: "${TRUTH_SEEDS:=0 1 2 3 4}"
: "${TRUTH_CLEAN:=10}" # clean networks; the first of them are the groups without noise
: "${TRUTH_ENDS:=4}"   # of these, the end networks of impostors
: "${TRUTH_RUN:=0}"
name=$(basename "$TRUTH_DATA")
if [[ $TRUTH_RUN != 0 ]]; then name+=_$TRUTH_RUN; fi
models=$MODELS/ground_truth/$name
results=$RESULTS/ground_truth/$name
data=(-d "$TRUTH_DATA" -data "$TRUTH_ROOT" -workers "$WORKERS" -gpu GPU)
first=$((100000 * TRUTH_RUN)) # networks of one seed are alike, whatever their group: no two share one

train() { # NAME GROUP SEED OPTION...: a network of the list
    list+=$'\n'"$1,$1/model_$TRUTH_EPOCHS.pt,$TRUTH_NETWORK,$2"
    todo "$models/$1/config.txt" exec_train.py "$TRUTH_NETWORK" "${data[@]}" "${training[@]}" -e "$TRUTH_EPOCHS" \
        -s "$3" --intervention-seed "$3" "${@:4}" -dir "$models/$1" --resume
}

# Networks
list="name,path,type,group"
for ((i = 0; i < TRUTH_CLEAN; i++)); do
    groups=clean
    if [[ " $TRUTH_SEEDS " == *" $i "* ]]; then groups="label_noise:0 image_noise:0 clean"; fi
    train "clean_$i" "$groups" $((first + i))
done
for test in label_noise shortcut image_noise; do
    for strength in ${STRENGTHS[$test]}; do
        first=$((first + 1000))
        for seed in $TRUTH_SEEDS; do
            train "${test}_${strength}_$seed" "$test:$strength" $((first + seed)) "--${test//_/-}" "$strength"
        done
    done
done
train shuffled_labels impostor:shuffled_labels $((first + 1000)) --label-noise 1
if [[ ${#QUEUE[@]} != 0 && $DRY_RUN == 0 ]]; then rm -f "$results"/{scores,curves}.csv; fi # of fewer networks
run_stage

# Impostors: made from the last clean network, of its class; and made from each end network, as its copies are
mkdir -p "$models"
of_last=(class_means one_hot clustered_noise class_beside_untrained class_beside_random)
of_ends=(nearest_logits nearest_features random_of_class class_mean_where_the_tail_looks)
copies=(permuted rotated)
python_list() { printf '"%s", ' "$@"; }
read -ra layers <<< "$TRUTH_GROUP_LAYERS"
donor() { echo "$(cd "$models" && pwd)/clean_$1/model_$TRUTH_EPOCHS.pt"; }
dataset=$TRUTH_DATA
for pair in $STAND_INS; do if [[ $dataset == "${pair%%=*}" ]]; then dataset=${pair#*=}; fi; done
{
    echo "from functools import partial"
    echo "from misc.impostors import planted"
    echo "make = partial(planted, network='$TRUTH_NETWORK', layers=[$(python_list "${layers[@]}")]," \
        "dataset='$dataset', root='$TRUTH_ROOT')"
    for kind in "${of_last[@]}"; do
        echo "$kind = partial(make, '$kind', '$(donor $((TRUTH_CLEAN - 1)))')"
    done
    for ((i = 0; i < TRUTH_ENDS; i++)); do
        for kind in "${of_ends[@]}" "${copies[@]}"; do echo "${kind}_$i = partial(make, '$kind', '$(donor $i)')"; done
    done
} > "$models/impostors.py"
own=()
plant() { # NAME GROUP
    list+=$'\n'"$1,DEFAULT,impostors.py:$1,$2"
    own+=("$models/impostors.py:$1")
}
list+=$'\n'"fresh,-,$TRUTH_NETWORK,impostor:fresh"
for kind in "${of_last[@]}"; do plant "$kind" "impostor:$kind"; done
for ((i = 0; i < TRUTH_ENDS; i++)); do
    for kind in "${of_ends[@]}"; do plant "${kind}_$i" "impostor:$kind"; done
    for kind in "${copies[@]}"; do plant "${kind}_$i" "similar:$kind"; done
done

# All pairs within each test, a share a GPU
echo "$list" > "$models/networks.csv"
read -ra gpus <<< "$GPUS"
read -ra methods <<< "$TRUTH_METHODS"
sources=()
all_pairs() { # NAME PATTERN LAYERS OPTION...: pairs of the networks whose lines have this pattern
    sources+=("$results/$1")
    sed -nE "1p; /$2/p" "$models/networks.csv" > "$models/$1.csv"
    for shard in $(seq ${#gpus[@]}); do
        todo "$results/scores.csv" misc/all_pairs.py "$models/$1.csv" "${3// /,}" \
            "${STITCH[$TRUTH_NETWORK]:-rc2c_pre}" "${data[@]}" --methods "${methods[@]}" "${matching[@]}" \
            --no-verdict --detector mahalanobis --alignment pool --permutations 20 \
            --metrics cka cka_debiased pwcca procrustes mutual_knn \
            --probes "$PROBE_EPOCHS" -dir "${results#results/}/$1" --shard "$shard/${#gpus[@]}" "${@:4}"
    done
}
all_pairs clean "clean$" "$TRUTH_LAYERS"
all_pairs label_noise label_noise: "$TRUTH_GROUP_LAYERS"
all_pairs image_noise image_noise: "$TRUTH_GROUP_LAYERS"
all_pairs shortcut shortcut: "$TRUTH_GROUP_LAYERS"
all_pairs shortcut_dots shortcut: "$TRUTH_GROUP_LAYERS" --shortcut 0
ends=$(seq 0 $((TRUTH_ENDS - 1)))
all_pairs impostors "^clean_(${ends//$'\n'/|}),|impostor:|similar:" "$TRUTH_GROUP_LAYERS" \
    --ends $(printf 'clean_%s ' $ends) --own-types "${own[@]}"
run_stage

# Scores
todo "$results/curves.csv" misc/compare_layers.py "$results/clean" -o "$results/curves.csv"
todo "$results/scores.csv" misc/ground_truth.py "${sources[@]}" "$models/networks.csv" "${data[@]}" \
    --own-types "${own[@]}" -o "$results/scores.csv" --freeze "$results/frozen" "${frozen[@]}"
run_queue
