#!/usr/bin/env bash
# The 200-epoch CIFAR-10 recipes for so many minutes: benchmarks/cifar10_gpu.sh MINUTES IMAGES [--methods simclr,swav] [--epochs N]
# IMAGES: the folder with train/ and test/, or cifar10-images.tar.xz; see cifar10_gpu.py.
set -euo pipefail
source "$(dirname "$0")/_on_gpu.sh"
exec "$python" benchmarks/cifar10_gpu.py "$@"
