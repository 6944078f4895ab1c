#!/usr/bin/env bash
# Runs two workers on this machine, from the repository's folder; flags follow:
#   bash configs/cluster/two_workers.sh --flagfile=configs/digits_resnet20.flags \
#       --run_dir=runs/two_workers --train_steps=100 --scale_schedule
set -uo pipefail
workers='"localhost:23456", "localhost:23457"'
pids=()
for index in 0 1; do
    TF_CONFIG="{\"cluster\": {\"worker\": [$workers]}, \"task\": {\"type\": \"worker\", \"index\": $index}}" \
        "${PYTHON:-python}" train.py "$@" &
    pids+=($!)
done
trap 'kill "${pids[@]}" 2>/dev/null' INT TERM
code=0
for pid in "${pids[@]}"; do
    wait "$pid" || code=$?
done
exit "$code"
