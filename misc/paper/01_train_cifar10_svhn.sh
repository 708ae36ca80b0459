#!/usr/bin/env bash
# Base networks: ResNet-18 and ViT-Ti on CIFAR-10 and SVHN, with several seeds.
# The authors' README does not state the settings of training; ours are the defaults of exec_train.py (Adam, 100 epochs)
# with the batch size of its examples.
source "$(dirname "$0")/common.sh"

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        for seed in $SEEDS; do
            folder=$MODELS/$dataset/$network/$seed
            todo "$folder/config.txt" exec_train.py "$network" -d "$dataset" -data "$DATA" -b 512 -e "$EPOCHS" \
                -s "$seed" -dir "$folder" --resume -gpu GPU
        done
    done
done
run_queue
