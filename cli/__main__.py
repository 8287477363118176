"""`python -m cli`: the same as the `orderstream` script."""

import sys

from cli.app import main

if __name__ == "__main__":
    sys.exit(main())
