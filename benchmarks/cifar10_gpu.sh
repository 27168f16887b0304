#!/usr/bin/env bash
# The 200-epoch CIFAR-10 recipes for so many minutes: benchmarks/cifar10_gpu.sh MINUTES IMAGES [--methods simclr,swav] [--epochs N]
# IMAGES: the folder with train/ and test/, or cifar10-images.tar.xz; see cifar10_gpu.py.
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
exec "$python" benchmarks/cifar10_gpu.py "$@"
