#!/usr/bin/env bash
# Networks for the tests of ground truth, with ReSi's settings: ResNet-18 on CIFAR-100, five a group, which differ by an
# intervention. A subset of ImageNet: TRUTH_DATA=FOLDER. misc/docs/ground_truth.md says how to stitch and score them.
source "$(dirname "$0")/common.sh"
: "${TRUTH_DATA:=cifar100}"
: "${TRUTH_ROOT:=$DATA}" # a folder of its own for a subset of ImageNet
: "${TRUTH_NETWORK:=resnet18}"
: "${TRUTH_SEEDS:=0 1 2 3 4}"
: "${TRUTH_EPOCHS:=200}"

folder=$MODELS/ground_truth/$TRUTH_DATA
for group in label_noise:0 label_noise:0.5 label_noise:0.75 shortcut:0 shortcut:0.75 shortcut:1 \
    image_noise:1000 image_noise:2000 image_noise:4000; do
    test=${group%:*} strength=${group#*:}
    for seed in $TRUTH_SEEDS; do
        place=$folder/${test}_${strength}_$seed
        todo "$place/config.txt" exec_train.py "$TRUTH_NETWORK" -d "$TRUTH_DATA" \
            -data "$TRUTH_ROOT" -workers "$WORKERS" -e "$TRUTH_EPOCHS" -o sgd -lr 0.1 --momentum 0.9 \
            -sched cosine -wd 5e-4 -b 128 \
            "--${test//_/-}" "$strength" -s "$seed" --intervention-seed "$seed" \
            -dir "$place" --resume -gpu GPU
    done
done
run_queue
