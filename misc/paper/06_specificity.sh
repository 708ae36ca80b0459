#!/usr/bin/env bash
# Specificity: CKA, PWCCA and Procrustes between all layers at full rank, to be held against the grids of 02 and 03.
# similarity.csv takes the paper's samples, positions of some pairs and images of others; similarity_pool.csv images of
# all pairs, which is what a specificity test needs.
source "$(dirname "$0")/common.sh"

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        for pair in $PAIRS; do
            folder=$RESULTS/$dataset/$network/$pair
            layers=${LAYERS[$network]// /,}
            for alignment in auto pool; do
                table=$folder/similarity
                if [[ $alignment == pool ]]; then table+=_pool; fi
                todo "$table.json" exec_compute_low_rank_sim_metrics.py \
                    "$(checkpoint "$dataset" "$network" "${pair%-*}")" \
                    "$(checkpoint "$dataset" "$network" "${pair#*-}")" \
                    "$network" "$network" "$layers" "$layers" -d "$dataset" -data "$DATA" \
                    --alignment "$alignment" -o "$table.csv" -gpu GPU
            done
        done
    done
done
run_queue
