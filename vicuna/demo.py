"""`python -m vicuna.demo` is `vicuna demo`; the chain is in `vicuna/bot/demo/`."""

import sys

from vicuna.bot.demo.__main__ import main

if __name__ == "__main__":
    sys.exit(main(None))
