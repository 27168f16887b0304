#!/usr/bin/env bash
# Colours on the GPU beside the step they feed: benchmarks/data_gpu.sh [--images 64]; data_gpu.py says what is measured.
set -euo pipefail
source "$(dirname "$0")/_on_gpu.sh"
exec "$python" benchmarks/data_gpu.py "$@"
