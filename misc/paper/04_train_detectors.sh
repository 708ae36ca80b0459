#!/usr/bin/env bash
# OOD detectors for all layers of the end networks, each a run of its own so that they spread over GPUs.
# For CIFAR-10 as in the authors' README. There is no larger SVHN as CIFAR-5M is for CIFAR-10, and the README does not
# say what its detectors were fine-tuned on; ours take the training images of SVHN.
source "$(dirname "$0")/common.sh"

declare -A ID=([cifar10]=cifar5m [svhn]=svhn)
declare -A ID_ROOT=([cifar10]=$CIFAR5M [svhn]=$DATA)
ends=$(for pair in $PAIRS; do echo "${pair#*-}"; done | sort -u)

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        for end in $ends; do
            for layer in ${LAYERS[$network]}; do
                folder=$MODELS/$dataset/$network/$end/detectors/$layer
                todo "$folder/config.txt" exec_train_representation_classifier.py \
                    "$(checkpoint "$dataset" "$network" "$end")" "$network" "$layer" -m "${DETECTOR[$network]}" \
                    -d "$dataset" -data "$DATA" -b 512 -e "$EPOCHS" -fe "$FINETUNE_EPOCHS" \
                    -ftidd "${ID[$dataset]}" -ftiddata "${ID_ROOT[$dataset]}" \
                    -ftoodd outlier_exposure -ftooddata "$OE" \
                    -dir "$folder" -fdir "$MODELS/$dataset/detector_store" --resume -gpu GPU
            done
        done
    done
done
run_queue
