"""The order of the rows of q and k."""

import numpy as np
import pytest

from vicuna.weights.gguf.names import permute, unpermute


@pytest.mark.parametrize("heads", [1, 3, 4])
def test_permuting_is_undone(heads: int) -> None:
    values = np.arange(heads * 8 * 5).reshape(heads * 8, 5)
    assert (unpermute(permute(values, heads), heads) == values).all()
    assert (unpermute(permute(values[:, 0], heads), heads) == values[:, 0]).all()
    assert permute(values, heads)[:4, 0].tolist() == [0, 20, 5, 25]
