#!/usr/bin/env bash
# Curves of sensitivity, and which measure can be trusted. No GPU. The other figures come with the results: grid.png
# (accuracy), evaluation_energy.png (accuracy, AUROC, AUPR, FPR95), similarity.png (CKA, PWCCA, Procrustes).
source "$(dirname "$0")/common.sh"

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        folder=$RESULTS/$dataset/$network
        ranked=$folder/${PAIRS%% *}/sensitivity
        by_rank=("$ranked/probes.csv" "$ranked/dm" "$ranked/tlm")
        for layer in ${LAYERS[$network]}; do by_rank+=("$ranked/similarity/$layer.csv"); done
        full_rank=()
        for pair in $PAIRS; do full_rank+=("$folder/$pair"/{similarity.csv,similarity_pool.csv,dm,tlm}); done

        todo "$folder/statistics.csv" misc/score_measures.py "${by_rank[@]}" "${full_rank[@]}" \
            -o "$folder/statistics.csv"
    done
done
run_queue
