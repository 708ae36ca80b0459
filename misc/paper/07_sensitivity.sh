#!/usr/bin/env bash
# Sensitivity: what measures, probes and stitching make of a layer that keeps only its first principal components.
# The ranks and the options of probes are those of the authors' README. It does not state the networks and layers; ours
# are those of the first of $PAIRS and all layers, each with the layer of the same name. A truncation depends on the
# batch, so that -b counts.
source "$(dirname "$0")/common.sh"

read -ra ranks <<< "$RANKS"
pair=${PAIRS%% *}

width() { # LAYER: a higher rank than this changes nothing and is left out
    case $1 in
        layer1.*) echo 64 ;;
        layer2.*) echo 128 ;;
        layer3.*) echo 256 ;;
        layer4.*) echo 512 ;;
        blocks.*) echo 192 ;;
    esac
}

for dataset in $DATASETS; do
    for network in $NETWORKS; do
        front=$(checkpoint "$dataset" "$network" "${pair%-*}")
        end=$(checkpoint "$dataset" "$network" "${pair#*-}")
        folder=$RESULTS/$dataset/$network/$pair/sensitivity
        read -ra layers <<< "${LAYERS[$network]}"

        todo "$folder/probes.json" exec_probe.py "$front" "$network" -l "${layers[@]}" -ranks "${ranks[@]}" \
            -d "$dataset" -data "$DATA" -b 256 -e "$PROBE_EPOCHS" -o "$folder/probes.csv" --resume -gpu GPU
        for layer in "${layers[@]}"; do
            todo "$folder/similarity/$layer.json" exec_compute_low_rank_sim_metrics.py "$front" "$end" \
                "$network" "$network" "$layer" "$layer" -m1r "${ranks[@]}" -d "$dataset" -data "$DATA" \
                -o "$folder/similarity/$layer.csv" -gpu GPU
            for rank in "${ranks[@]}"; do
                if ((rank > $(width "$layer"))); then continue; fi
                stitch=(exec_stitch.py "$front" "$end" "$network" "$network" "$layer" "$layer" "${STITCH[$network]}"
                    --mod-only-stitch --front-stitch-rank "$rank" -d "$dataset" -data "$DATA" -b 256 --resume -gpu GPU)
                # a folder for each: its runs are called by the time at which they began
                to=${folder#results/} here=$layer/rank$rank
                todo "$folder/dm/$here/*/config.txt" "${stitch[@]}" -i pinv -pinv-samples "$DM_SAMPLES" -e 0 \
                    --front-pinv-rank "$rank" -dir "$to/dm/$here"
                todo "$folder/tlm/$here/*/config.txt" "${stitch[@]}" -i rand -e "$TLM_EPOCHS" -dir "$to/tlm/$here"
            done
        done
    done
done
run_queue
