#!/usr/bin/env bash
# One table for all layers and ranks of 07, of each way to stitch. No GPU. What is there is kept: after runs with other
# ranks remove these tables, and what 11 made of them.
source "$(dirname "$0")/common.sh"

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        for method in dm tlm; do
            folder=$RESULTS/$dataset/$network/${PAIRS%% *}/sensitivity/$method
            todo "$folder/collected.csv" misc/collect_results.py "$folder"
        done
    done
done
run_queue
