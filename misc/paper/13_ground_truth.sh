#!/usr/bin/env bash
# Which measure can be believed? Networks that differ by an intervention, five a group; all pairs of them; the scores.
# Three stages, each of which waits for the one before. TRUTH=cifar100 has ReSi's settings (ResNet-18); with
# TRUTH_DATA=FOLDER they are those for a subset of ImageNet. TRUTH=digits is the same in small, on the CPU.
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
    : "${TRUTH_EPOCHS:=10}"
    : "${TRUTH_METHODS:=pinv covariance repair task:2}"
    training=(-b 32 -lr 0.003)
    matching=(-pinv-samples 1437 --pinv-cutoff exact -lr 0.01)
else
    : "${TRUTH_DATA:=cifar100}"
    : "${TRUTH_NETWORK:=resnet18}"
    : "${TRUTH_LAYERS:=$RESNET_LAYERS}"
    : "${TRUTH_EPOCHS:=200}"
    : "${TRUTH_METHODS:=pinv covariance repair task:10}" # as misc/all_pairs.py --methods takes them
    training=(-b 128 -o sgd -lr 0.1 --momentum 0.9 -sched cosine -wd 5e-4)
    matching=(-b 128 -pinv-samples auto)
fi
: "${TRUTH_ROOT:=$DATA}" # a folder of its own for a subset of ImageNet
: "${TRUTH_SEEDS:=0 1 2 3 4}"
declare -A STRENGTHS=([label_noise]="0 0.5 0.75" [shortcut]="0 0.75 1" [image_noise]="1000 2000 4000")
TESTS="label_noise shortcut image_noise"

# Networks
models=$MODELS/ground_truth/$(basename "$TRUTH_DATA")
results=$RESULTS/ground_truth/$(basename "$TRUTH_DATA")
data=(-d "$TRUTH_DATA" -data "$TRUTH_ROOT" -workers "$WORKERS" -gpu GPU)
list="name,path,type,group"
first=0 # networks of one seed are alike, whatever their group: no two of a test share one
for test in $TESTS; do
    for strength in ${STRENGTHS[$test]}; do
        for seed in $TRUTH_SEEDS; do
            own=$((first + seed))
            name=${test}_${strength}_$own
            list+=$'\n'"$name,$name/model_$TRUTH_EPOCHS.pt,$TRUTH_NETWORK,$test:$strength"
            todo "$models/$name/config.txt" exec_train.py "$TRUTH_NETWORK" "${data[@]}" "${training[@]}" \
                -e "$TRUTH_EPOCHS" "--${test//_/-}" "$strength" -s "$own" --intervention-seed "$own" \
                -dir "$models/$name" --resume
        done
        first=$((first + 1000))
    done
done
if [[ ${#QUEUE[@]} != 0 && $DRY_RUN == 0 ]]; then rm -f "$results"/{scores,curves}.csv; fi # of fewer networks
run_stage

# All pairs within each test, a share a GPU
read -ra gpus <<< "$GPUS"
read -ra methods <<< "$TRUTH_METHODS"
for test in $TESTS; do
    sed -n "1p; /,$test:/p" <<< "$list" > "$models/$test.csv"
    for shard in $(seq ${#gpus[@]}); do
        todo "$results/scores.csv" misc/all_pairs.py "$models/$test.csv" "${TRUTH_LAYERS// /,}" \
            "${STITCH[$TRUTH_NETWORK]:-rc2c_pre}" "${data[@]}" --methods "${methods[@]}" "${matching[@]}" \
            --alignment pool --permutations 20 --metrics cka cka_debiased pwcca procrustes mutual_knn \
            --probes "$PROBE_EPOCHS" --no-figures -dir "${results#results/}" --shard "$shard/${#gpus[@]}"
    done
done
run_stage

# Scores
echo "$list" > "$models/networks.csv"
todo "$results/curves.csv" misc/collect_results.py "$results" --curves
todo "$results/scores.csv" misc/ground_truth.py "$results" "$models/networks.csv" "${data[@]}" --map cka \
    -o "$results/scores.csv"
run_queue
