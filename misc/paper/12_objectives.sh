#!/usr/bin/env bash
# Other objectives than the task, and other closed forms than least squares, on CIFAR-10: the grids of 02 once more for
# each. Whether their activations are out of distribution: METHODS="$OBJECTIVES $FORMS" DATASETS=cifar10 with 05.
source "$(dirname "$0")/common.sh"

for network in $NETWORKS; do
    for pair in $PAIRS; do
        front=$(checkpoint cifar10 "$network" "${pair%-*}")
        end=$(checkpoint cifar10 "$network" "${pair#*-}")
        layers=${LAYERS[$network]// /,}
        folder=$RESULTS/cifar10/$network/$pair
        stitch=(exec_stitch.py "$front" "$end" "$network" "$network" "$layers" "$layers" "${STITCH[$network]}"
            --mod-only-stitch -d cifar10 -data "$DATA" --resume -gpu GPU)
        for objective in $OBJECTIVES; do
            todo "$folder/$objective/*/config.txt" "${stitch[@]}" -i rand -e "$TLM_EPOCHS" --objective "$objective" \
                -dir "${folder#results/}/$objective"
        done
        for form in $FORMS; do
            todo "$folder/$form/*/config.txt" "${stitch[@]}" -i "$form" -pinv-samples "$DM_SAMPLES" -e 0 \
                -dir "${folder#results/}/$form"
        done
    done
done
run_queue
