"""`python -m vissl_lite.plan` is `vissl-lite plan`."""

import sys

from vissl_lite.failures import USER_ERRORS, block
from vissl_lite.plan.command import main

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except USER_ERRORS as error:
        print(block(error), file=sys.stderr)
        sys.exit(2)
