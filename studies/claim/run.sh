#!/bin/sh
# Trains a stage: studies/claim/run.sh STAGE [OPTION ...], and STAGE is
# checkpoints, tuning, stage-a, stage-b, stage-b-placebo, stage-b-penalty, stage-b-moving or stage-c.
# Start it twice for two runs at a time. Complete runs are kept and interrupted ones go on. Options are the study's, such
# as --data.root FOLDER. What is trained is the tracegrad that is installed; each result records its commit.
set -eu
here=$(dirname "$0") stage=$1 results=results/claim
shift
export OMP_NUM_THREADS=1

study() { # RECIPE FOLDER [OPTION ...]
    recipe=$1 folder=$2
    shift 2
    tracegrad study "$here/$recipe.yaml" --output "$results/$folder" --no-wait "$@"
}

case $stage in
checkpoints)
    study checkpoints-cifar10 stage-0/cifar10 "$@"
    study checkpoints-moving stage-0/moving
    ;;
tuning)
    for rate in 0.03 0.1 0.3; do
        for decay in 1e-4 5e-4; do
            study tuning "tuning/rate-$rate-decay-$decay" --training.learning_rate $rate --training.weight_decay $decay "$@"
        done
    done
    ;;
stage-a)
    study stage-a-fashion-mnist stage-a/fashion-mnist "$@"
    study stage-a-moving stage-a/moving "$@"
    ;;
stage-b-placebo) # beside stage B's baseline: it is no method of the study
    for seed in 1000 1001 1002 1003; do
        tracegrad train "$here/stage-b.yaml" --methods '{placebo: {alpha: 1.0e-6}}' --claims '{}' --method placebo \
            --training.learning_rate 0.3 --seed $seed --output "$results/stage-b" "$@"
    done
    ;;
*) study "$stage" "$stage" "$@" ;;
esac
