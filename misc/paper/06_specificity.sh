#!/usr/bin/env bash
# Specificity: CKA, PWCCA and Procrustes between all layers at full rank, to be held against the grids of 02 and 03.
source "$(dirname "$0")/common.sh"

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        for pair in $PAIRS; do
            folder=$RESULTS/$dataset/$network/$pair
            layers=${LAYERS[$network]// /,}
            todo "$folder/similarity.config.txt" exec_compute_low_rank_sim_metrics.py \
                "$(checkpoint "$dataset" "$network" "${pair%-*}")" "$(checkpoint "$dataset" "$network" "${pair#*-}")" \
                "$network" "$network" "$layers" "$layers" -d "$dataset" -data "$DATA" \
                -o "$folder/similarity.csv" -gpu GPU
        done
    done
done
run_queue
