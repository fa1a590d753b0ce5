"""`python -m vicuna` is the command `vicuna`."""

import sys

from vicuna.cli import main

if __name__ == "__main__":
    sys.exit(main(None))
