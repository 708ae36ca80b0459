#!/usr/bin/env bash
# Stitching on ImageNet, as on the small images. The authors' README does not state how long task loss matching was
# trained here; ours takes the same number of epochs, which TLM_EPOCHS lowers.
source "$(dirname "$0")/common.sh"

EPOCHS=$IMAGENET_EPOCHS # names the checkpoints
network=tv_resnet18
layers=${LAYERS[$network]// /,}
for pair in $PAIRS; do
    front=$(checkpoint imagenet "$network" "${pair%-*}")
    end=$(checkpoint imagenet "$network" "${pair#*-}")
    folder=$RESULTS/imagenet/$network/$pair
    stitch=(exec_stitch.py "$front" "$end" "$network" "$network" "$layers" "$layers" "${STITCH[$network]}"
        --mod-only-stitch -d imagenet -data "$IMAGENET" -workers "$WORKERS" -prefetch 4 --resume -gpu GPU)
    todo "$folder/dm/*/config.txt" "${stitch[@]}" -i pinv -pinv-samples "$DM_SAMPLES" -e 0 -dir "${folder#results/}/dm"
    todo "$folder/tlm/*/config.txt" "${stitch[@]}" -i rand -e "$TLM_EPOCHS" -dir "${folder#results/}/tlm"
done
run_queue
