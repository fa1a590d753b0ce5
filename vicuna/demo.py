"""`python -m vicuna.demo` is `vicuna demo`; its stages are in `vicuna/bot/demo/chain.py`."""

import sys

from vicuna.bot.demo.__main__ import main

if __name__ == "__main__":
    sys.exit(main(None))
