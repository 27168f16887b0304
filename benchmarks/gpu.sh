#!/usr/bin/env bash
# Everything that only a GPU can settle, in under 10 minutes: benchmarks/gpu.sh [--cpu-toy] [--minutes 9] [--only PART,...] [--network NAME] [--out DIR]
# Writes DIR/<device>.json (benchmarks/results) and prints tables for RESULTS.md; gpu_steps.py says what is measured and needed.
set -euo pipefail
source "$(dirname "$0")/_on_gpu.sh"
exec "$python" benchmarks/gpu_steps.py "$@"
