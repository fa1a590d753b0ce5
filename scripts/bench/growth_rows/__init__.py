"""The rows of the growth bench, by room.

- `measuring`: what a row is, and how it is measured
- `inputs`: conversations, tokenizers and weights of a wanted size
- `entry_points`: what must have a row, read from the code's own tables
- `data`, `conversation`, `train`, `weights`, `evaluation`, `serving`, `small_doors`: the rows
"""

from growth_rows import conversation, data, evaluation, serving, small_doors, train, weights
from growth_rows.measuring import Row


def all_rows() -> list[Row]:
    """Every row, in the order of the rooms."""
    rooms = (data, conversation, train, weights, evaluation, serving, small_doors)
    return [row for room in rooms for row in room.rows()]
