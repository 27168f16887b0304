#!/usr/bin/env bash
# What 20 minutes of one core teach a ResNet-18 on CIFAR-10:
#
#   CIFAR10=DIR bash benchmarks/cifar10_cpu.sh OUT
#
# SimCLR, SwAV (781 steps each) and supervised training (1,562), batch 64, bf16, one after the other
# on one thread; then kNN and linear probe of all four, the untrained trunk too, on all images.
# Prints the CPU time of each training; the table is OUT/suite/suite.html. Started again, it goes on.
set -euo pipefail

out=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export OMP_NUM_THREADS=1
numerics="precision=bf16 memory.memory_format=channels_last"
common="train.batch_size=64 hooks=[checkpoint,diagnose] evaluations=[] objective=loss $numerics"
mkdir -p "$out"

train() { # NAME RECIPE [key=value ...]
  local name=$1 recipe=$2
  shift 2
  printf '\n%s\n' "$name"
  TIMEFORMAT="$name: %U s of CPU time, %R s"
  # shellcheck disable=SC2086
  time python tools/run.py "config=$recipe" $common "run_dir=$out/$name" "$@"
}

train simclr pretrain/simclr/resnet18_cifar10_200ep train.epochs=1
train swav pretrain/swav/resnet18_cifar10_200ep train.epochs=1
# the recipe's 5 epochs of warm-up are longer than 2 epochs
train supervised supervised/resnet18_cifar10_100ep train.epochs=2 schedules.lr.length=0.1

# shellcheck disable=SC2086
python tools/run.py benchmark_suite "untrained=untrained:$out/simclr" "simclr=$out/simclr" \
  "swav=$out/swav" "supervised=$out/supervised" --out "$out/suite" \
  'evaluations=[knn,linear]' 'evaluations.knn.k=[200]' 'evaluations.knn.temperatures=[0.1]' $numerics
