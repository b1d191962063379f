#!/usr/bin/env bash
# One head of each task and a report generator, trained for seconds: models for `demo.py` to time, good for nothing else.
#
#     bash eval/speed/demo_heads.sh DATA RUNS        # prints the command that times them
#
# DATA holds breast_busi, fetal_head_hc18 and lung_pocovid as eval/heads.py takes them. A head that is there is not made anew.
set -euo pipefail
data=$(realpath "$1")
mkdir -p "$2"
runs=$(realpath "$2")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

train() { # name, task, data set, options
    local output="$runs/$1"
    [ -d "$output" ] || python training/finetune.py "$2" --data "$data/$3" --output "$output" --cpu_minutes 0.3 --seed 0 "${@:4}"
}
train classes classification breast_busi --label label
train outlines segmentation breast_busi
train ellipses detection fetal_head_hc18
train landmarks keypoints fetal_head_hc18
train clips video lung_pocovid --label label --sequence clip --min_frames 2
train enhanced enhancement breast_busi --image_size 192
[ -d "$runs/reports" ] || python training/report.py --phantoms 60 --languages en --output "$runs/reports" --epochs 2 --seed 0

models=""
for name in classes outlines ellipses landmarks clips enhanced; do models+=" --model $runs/$name"; done
echo "python eval/speed/demo.py$models --report $runs/reports"
