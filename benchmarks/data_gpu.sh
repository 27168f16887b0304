#!/usr/bin/env bash
# Data on a GPU: colours beside the step they feed (data_gpu.py), then SwAV with ResNet-50 at full rate and the workers
# that it needs (data_training.py), about 10 minutes: benchmarks/data_gpu.sh [--toy]
# --toy: on a CPU with a tiny trunk, 2 minutes. The photographs: imagenet-samples-250.tar in $VISSL_LITE_DATA.
set -euo pipefail
source "$(dirname "$0")/_on_gpu.sh"
toy=${1:-}
"$python" benchmarks/data_gpu.py $toy
exec "$python" benchmarks/data_training.py ${toy:---device cuda --back-ends fast --rounds 2}
