"""Private data to find, and texts around it."""

import time

from vicuna.data.privacy.step import find

AROUND = ["{}", "It is {}.", 'x = "{}",', "({})", "| {} |", "- {}\n- next", "那是 {}，对。"]
# Keys are put together in the tests, so that no scanner takes these files for a leak.
RANDOM = "q7Zp2XvN9bLrT4wKc8HsYf3MdGj6RnUa5BeVx1PoWiQtCz0SlEhJyDgAkFuOmIrT8vNw4Xb"


def found_in(text: str) -> list[tuple[str, str]]:
    """Rule and text of everything private in a text."""
    return [(kind.rule, text[start:end]) for (start, end), kind in find(text)]


def seconds_of_search(text: str) -> float:
    """The processor's time for searching a text."""
    start = time.process_time()
    find(text)
    return time.process_time() - start
