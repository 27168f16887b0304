#!/usr/bin/env bash
# Data on a GPU: colours beside the step they feed (data_gpu.py), then SwAV with ResNet-50 at full rate and the workers
# that it needs (data_training.py), in under 10 minutes: benchmarks/data_gpu.sh [--toy | OPTIONS of data_training.py]
# --toy: on a CPU with a tiny trunk, 2 minutes. The photographs: imagenet-samples-250.tar in $VISSL_LITE_DATA.
set -euo pipefail
source "$(dirname "$0")/_on_gpu.sh"
photographs=${VISSL_LITE_DATA:-../shared/data}/imagenet-samples-250.tar
if [ ! -f "$photographs" ]; then
  echo "data_gpu.sh: there is no $(realpath -m "$photographs"); set VISSL_LITE_DATA to the folder with it" >&2
  exit 2
fi
if [ "${1:-}" = --toy ]; then
  "$python" benchmarks/data_gpu.py --toy
else
  "$python" benchmarks/data_gpu.py
  set -- --device cuda --back-ends fast --rounds 1 "$@"
fi
exec "$python" benchmarks/data_training.py "$@"
