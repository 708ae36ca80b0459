#!/usr/bin/env bash
# Stitching on CIFAR-10, by direct matching (dm) and by task loss matching (tlm): every layer of one network to every
# layer of another one, and to every layer of its own. A grid is one run; its diagonal has the corresponding layers.
source "$(dirname "$0")/common.sh"

dataset=${DATASET:-cifar10}
for network in $NETWORKS; do
    for pair in $PAIRS; do
        front=$(checkpoint "$dataset" "$network" "${pair%-*}")
        end=$(checkpoint "$dataset" "$network" "${pair#*-}")
        layers=${LAYERS[$network]// /,}
        folder=$RESULTS/$dataset/$network/$pair
        stitch=(exec_stitch.py "$front" "$end" "$network" "$network" "$layers" "$layers" "${STITCH[$network]}"
            --mod-only-stitch -d "$dataset" -data "$DATA" --resume -gpu GPU)
        todo "$folder/dm/*/config.txt" "${stitch[@]}" -i pinv -pinv-samples "$DM_SAMPLES" -e 0 -dir "${folder#results/}/dm"
        todo "$folder/tlm/*/config.txt" "${stitch[@]}" -i rand -e "$TLM_EPOCHS" -dir "${folder#results/}/tlm"
    done
done
run_queue
