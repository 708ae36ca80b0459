#!/usr/bin/env bash
# Base networks on ImageNet: ResNet-18 by the recipe of PyTorch's example, as in the authors' README.
# One GPU each; to train one network on several, take a command of DRY_RUN=1, put `torchrun --nproc_per_node N` in the
# place of `python`, and leave out -gpu.
source "$(dirname "$0")/common.sh"

for seed in $SEEDS; do
    folder=$MODELS/imagenet/tv_resnet18/$seed
    todo "$folder/config.txt" misc/imagenet_train_main.py "$IMAGENET" -a tv_resnet18 -b 1024 \
        --epochs "$IMAGENET_EPOCHS" --seed "$seed" -j "$WORKERS" -sf 0 -dir "$folder" --resume -gpu GPU
done
run_queue
