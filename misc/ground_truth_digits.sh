#!/usr/bin/env bash
# Which measure can be believed? The whole protocol on the embedded digits: trains 45 networks, five of each of nine
# groups, stitches and compares all pairs within a test, and scores the measures. Give the same line again to go on
# after an interruption.
set -euo pipefail
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$repository"
: "${PYTHON:=python}"
if [[ $PYTHON == */* ]]; then PYTHON=$(realpath -s "$PYTHON"); fi
: "${OUT:=ground_truth}" # where all is written
: "${WORKERS:=2}"        # processes, of one thread each
: "${SEEDS:=0 1 2 3 4}"
: "${EPOCHS:=10}" # of the networks
: "${LAYERS:=pool2,pool3,pool4}"
: "${METHODS:=pinv covariance repair task:2}"
declare -A STRENGTHS=([label_noise]="0 0.5 0.75" [shortcut]="0 0.75 1" [image_noise]="1000 2000 4000")
TESTS="label_noise shortcut image_noise"
export OMP_NUM_THREADS=1
mkdir -p "$OUT/models" && cd "$OUT"

train() { # TEST STRENGTH NAME SEED: each network has initial weights, labels, dots and noise of its own
    local folder=models/$3
    "$PYTHON" "$repository/exec_train.py" small_cnn -d digits -gpu -1 -e "$EPOCHS" -b 32 -lr 0.003 -s "$4" \
        "--${1//_/-}" "$2" --intervention-seed "$4" -dir "$folder" --resume &> "$folder.log" \
        || { tail -n 3 "$folder.log" >&2; exit 255; } # which ends xargs
    echo "trained $folder" >&2
}

compare() { # TEST SHARD: pairs of networks of two tests say nothing
    # shellcheck disable=SC2086 # several methods
    "$PYTHON" "$repository/misc/all_pairs.py" "$1.csv" "$LAYERS" rc2c_pre -d digits -gpu -1 --no-figures \
        --methods $METHODS -pinv-samples 1437 --pinv-cutoff exact -lr 0.01 --probes 10 \
        --alignment pool --permutations 20 --metrics cka cka_debiased pwcca procrustes mutual_knn \
        -dir ground_truth --shard "$2/$WORKERS" 2> "$1.$2.log" || { tail -n 3 "$1.$2.log" >&2; exit 255; }
    echo "compared all pairs of share $2 of the test of $1" >&2
}

export -f train compare
export PYTHON WORKERS EPOCHS LAYERS METHODS repository

first=0 # networks of one seed are alike, whatever their group: no two of a test share one
echo "name,path,type,group" > networks.csv
for test in $TESTS; do
    for strength in ${STRENGTHS[$test]}; do
        for seed in $SEEDS; do
            name=${test}_${strength}_$((first + seed))
            echo "$name,models/$name/model_$EPOCHS.pt,small_cnn,$test:$strength" >> networks.csv
            [[ -e models/$name/config.txt ]] || echo "$test $strength $name $((first + seed))"
        done
        first=$((first + 1000))
    done
    sed -n "1p; /,$test:/p" networks.csv > "$test.csv"
done > untrained.txt
xargs -r -P "$WORKERS" -L 1 bash -c 'train "$@"' train < untrained.txt
rm untrained.txt

for test in $TESTS; do
    seq "$WORKERS" | xargs -P "$WORKERS" -I SHARD bash -c 'compare "$@"' compare "$test" SHARD
done

"$PYTHON" "$repository/misc/ground_truth.py" results/ground_truth networks.csv -d digits -gpu -1 -o scores.csv --map cka
echo "took $SECONDS s" >&2
