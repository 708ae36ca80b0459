#!/usr/bin/env bash
# Do all scripts of this folder work? Runs each on the embedded digits with tiny settings, in a scratch folder, and
# checks that they print commands only, that the results appear, and that a second run starts nothing. The numbers mean
# nothing.
set -euo pipefail
cd "$(dirname "$0")"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
unset DRY_RUN
export PYTHON=${PYTHON:-python} GPUS="-1 -1" WORKERS=0 OMP_NUM_THREADS=1
export MODELS=$scratch/models RESULTS="$scratch/all results" IMAGENET=$scratch/imagenet
export STAND_INS="cifar10=digits svhn=digits cifar5m=digits outlier_exposure=photo_patches resnet18=resnet18_samewidth"
export RANKS="16 1"
export EPOCHS=1 FINETUNE_EPOCHS=1 TLM_EPOCHS=1 PROBE_EPOCHS=1 IMAGENET_EPOCHS=1
export OBJECTIVES="soft feature" FORMS="covariance ortho"

fail() { echo "smoke.sh: $1" >&2 && exit 1; }

(cd ../.. && "$PYTHON" -c "from tests.tiny_datasets import write_imagenet; write_imagenet('$IMAGENET', 4, 3)")
for script in [0-9]*.sh; do
    export DATASETS=cifar10 NETWORKS="resnet18 vit_tiny_patch4_32" SEEDS="0 1" PAIRS=0-1
    export RESNET_LAYERS="layer1.0 layer4.1" VIT_LAYERS="blocks.0 blocks.11"
    case $script in # each kind of run once
        01*) DATASETS=svhn NETWORKS=resnet18 SEEDS=0 bash "$script" > /dev/null || fail "$script failed" ;;
        03*) export NETWORKS=resnet18 PAIRS=0-0 ;;
        04*) export RESNET_LAYERS=layer4.1 VIT_LAYERS=blocks.11 ;;
        07* | 10* | 11* | 12*) export NETWORKS=resnet18 ;;
        08* | 09*) export SEEDS=0 PAIRS=0-0 ;;
    esac
    echo "== $script after $SECONDS s" >&2
    DRY_RUN=1 bash "$script" > "$scratch/commands"
    [[ -s $scratch/commands ]] || fail "$script has nothing to do"
    if grep -vE "^$PYTHON [a-z_/]+\.py " "$scratch/commands"; then fail "this is no command that $script runs"; fi
    bash "$script" > /dev/null || { cat "$RESULTS"/logs/* && fail "$script failed"; }
    [[ -z $(bash "$script" 2> /dev/null) ]] || fail "$script runs again what it has done"
done

cd "$RESULTS"
for result in cifar10/{resnet18,vit_tiny_patch4_32}/0-1/{{dm,tlm}/{*/grid,evaluation_energy},similarity}.png \
    {svhn/resnet18,imagenet/tv_resnet18}/0-0/{dm,tlm}/*/grid.png \
    cifar10/resnet18/0-1/{soft,feature,covariance,ortho}/*/grid.png \
    cifar10/resnet18/{0-1/sensitivity/{probes,{dm,tlm}/collected}.csv,statistics.{csv,png}}; do
    [[ -s $result ]] || fail "$result is missing"
done
echo "smoke.sh: all scripts work ($(find . -name '*.log' | wc -l) runs in $SECONDS s)"
