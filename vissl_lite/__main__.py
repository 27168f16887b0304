"""`vissl-lite`, `python -m vissl_lite` and `tools/run.py` begin here."""

import os


def main() -> None:
    """Sets what must be set before torch is loaded, then runs the command line."""
    # threads that wait do not spin: where other programs compute too, steps are up to 8x faster
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from vissl_lite.cli import main

    main()


if __name__ == "__main__":
    main()
