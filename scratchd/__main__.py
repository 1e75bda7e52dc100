"""`python -m scratchd`."""

import sys

from scratchd.cli import main

if __name__ == "__main__":
    sys.exit(main())
