#!/usr/bin/env bash
# Are the stitched activations out of distribution? Needs the grids of 02 and 03 (METHODS: those of 12), and all
# detectors of 04: layers that have none are left out, and the evaluation is not repeated until its
# evaluation.json is removed.
# The detectors themselves are checked on the other dataset (for SVHN our choice), which they should find OOD.
source "$(dirname "$0")/common.sh"

declare -A CHECK=([cifar10]=svhn [svhn]=cifar10)

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        for pair in $PAIRS; do
            for method in $METHODS; do
                folder=$RESULTS/$dataset/$network/$pair/$method
                todo "$folder/evaluation.json" exec_eval_stitcher_ood.py "$folder" \
                    -d "$dataset" -data "$DATA" -b 64 -scd "${CHECK[$dataset]}" -scdata "$DATA" \
                    -detectors "$MODELS/$dataset/detector_store" -ed "$folder/energies" -gpu GPU
            done
        done
    done
done
run_queue
