"""The tables of GPUs, published speeds and shapes are whole."""

import pytest

from tests.train.builders import MakeOptions
from vicuna.train.planner.hardware import GIB, get_gpu, get_published_speeds, get_shape
from vicuna.train.planner.speed import measure_model


def test_every_gpu_and_published_speed_is_whole() -> None:
    for speed in get_published_speeds():
        assert get_gpu(speed.gpu).peak_flops
        assert get_shape(speed.shape).num_hidden_layers
    gpu = get_gpu("A100-80GB")
    assert 79 * GIB < gpu.memory_bytes < 80 * GIB
    assert [price.dollars for price in gpu.prices] == sorted(price.dollars for price in gpu.prices)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("llama-7b", 6.738), ("llama-13b", 13.016), ("llama-3-8b", 8.030), ("qwen2-5-7b", 7.616), ("mistral-7b", 7.242)],
)
def test_shapes_have_the_published_number_of_weights(make_options: MakeOptions, name: str, billions: float) -> None:
    assert measure_model(get_shape(name), make_options()).num_weights / 1e9 == pytest.approx(billions, abs=0.001)
