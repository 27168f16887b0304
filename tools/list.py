#!/usr/bin/env python
"""List what a recipe can name, from a checkout: python tools/list.py [loss [swav]]."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from vissl_lite.__main__ import main

if __name__ == "__main__":
    sys.argv.insert(1, "list")
    main()
