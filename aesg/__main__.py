"""`python -m aesg` is the command line of `aesg.cli`."""

import sys

from aesg.cli import main

if __name__ == "__main__":
    sys.exit(main())
