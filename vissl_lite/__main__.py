"""`vissl-lite`, `python -m vissl_lite` and `tools/run.py` begin here."""

import os
import sys


def main() -> None:
    """Sets what must be set before torch is loaded, then runs the command line."""
    # threads that wait do not spin: where other programs compute too, steps are up to 8x faster
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what fails is said in Python
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler complains where there is no GPU
    try:
        from vissl_lite.cli import main

        main()
    except KeyboardInterrupt:  # Ctrl-C while torch is being imported
        sys.exit(130)


if __name__ == "__main__":
    main()
