#!/usr/bin/env bash
# Everything that only a GPU can settle, in under 10 minutes: benchmarks/gpu.sh [--cpu-toy] [--minutes 9] [--only PART,...]
# Writes benchmarks/results/<device>.json and prints tables for RESULTS.md; gpu_steps.py says what is measured.
# On a machine without the packages: wheels in .whl/ are installed into a folder of their own first.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if compgen -G ".whl/*.whl" >/dev/null; then
  site=$(mktemp -d)
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$site" .whl/*.whl
  export PYTHONPATH="$PYTHONPATH:$site"
fi
exec "$python" benchmarks/gpu_steps.py "$@"
