#!/usr/bin/env python
"""Train or evaluate a recipe from a checkout: python tools/run.py config=quickstart."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vissl_lite.__main__ import main

if __name__ == "__main__":
    main()
