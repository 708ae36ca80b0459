#!/usr/bin/env bash
# Does training against attacks make networks alike? The study of misc/docs/study.md, on the CPU, in two processes.
# Each network alone; all pairs of them, and stitches from their untrained twins; verdicts; tests.
# An interrupted run goes on when the same line is given again. Other networks: STUDY_NETWORKS is a list of them with the
# columns name, path, type and group (robust or standard), STUDY_TYPES names its types that are code, STUDY_DATA is an
# .npz file of images, STUDY a name for the results, STUDY_MATCHED names networks of like architecture in both groups.
: "${GPUS:=-1 -1}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
source "$(dirname "$0")/common.sh"
if [[ -z ${STUDY_NETWORKS:-} ]]; then
    STUDY_NETWORKS=misc/paper/study_networks.csv
    : "${STUDY_TYPES:=$(printf 'misc.paper.study_networks:%s ' tiny10 resnet20 resnet32 marabou_small marabou_medium \
        cnn_a pgd resnet2b wide base)}"
    : "${STUDY_MATCHED:=marabou_small marabou_medium base wide cnn_a_adv cnn_a_mix pgd}"
fi
: "${STUDY_DATA:=models/study/cifar.npz}"
: "${STUDY:=study}"
: "${STUDY_LEAST_ACCURACY:=30}" # percent; networks below it are left out
lists=$MODELS/$STUDY
results=$RESULTS/$STUDY
read -ra types <<< "${STUDY_TYPES:-}"
read -ra matched <<< "${STUDY_MATCHED:-}"
if ((${#types[@]})); then types=(--own-types "${types[@]}"); fi
if ((${#matched[@]})); then matched=(--matched "${matched[@]}"); fi

# Each network alone: accuracy, also under attack; layers; its untrained twin
todo "$lists/singles.csv" misc/paper/study_singles.py "$STUDY_NETWORKS" "${types[@]}" -d "$STUDY_DATA" -gpu GPU \
    --least-accuracy "$STUDY_LEAST_ACCURACY" -dir "$lists"
if [[ ${#QUEUE[@]} != 0 && $DRY_RUN == 0 ]]; then rm -f "$results"/{verdict,grid,study}.csv; fi # of other networks
run_stage

# All pairs of networks, similarities of all pairs of twins, and stitches from twins: a share a process
names=()
while IFS=, read -r name _; do names+=("$name"); done < <(tail -n +2 "$lists/networks.csv")
read -ra gpus <<< "$GPUS"
all_pairs() { # LIST OPTION...
    for shard in $(seq ${#gpus[@]}); do
        todo "$results/study.csv" misc/all_pairs.py "$lists/$1.csv" "${types[@]}" -d "$lists/images.npz" -gpu GPU \
            -pinv-samples auto -n 1000 --metrics cka_debiased mutual_knn --alignment pool --no-figures \
            -dir "${results#results/}" --shard "$shard/${#gpus[@]}" "${@:2}"
    done
}
all_pairs networks --methods covariance
all_pairs twins --methods none
run_stage
all_pairs all --methods covariance --ends "${names[@]}" --no-similarity
run_stage

# Verdicts on pairs of networks, and one table of all measurements
pairs=()
for front in "${names[@]}"; do
    for end in "${names[@]}"; do
        if [[ $front != "$end" ]]; then pairs+=("$results/covariance/$front-$end"); fi
    done
done
todo "$results/verdict.csv" misc/verdict.py "${pairs[@]}" --networks "$lists/networks.csv" -o "$results/verdict.csv"
todo "$results/grid.csv" misc/collect_results.py "$results" -r --networks "$lists/all.csv" -o "$results/grid.csv"
run_stage

# Tests, table and figures
todo "$results/study.csv" misc/paper/study.py "$lists" "$results" "${matched[@]}" -o "$results/study.csv"
run_queue
