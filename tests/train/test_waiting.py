"""How training's threads wait: they sleep soon, unless the user has said otherwise."""

import os

import pytest

from vicuna.train.waiting import NAMES, SPINS, wait_without_spinning


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is put back, whatever is set in the test
        monkeypatch.delenv(name)


def test_waiting_threads_sleep_soon() -> None:
    wait_without_spinning()
    assert int(os.environ["GOMP_SPINCOUNT"]) == SPINS
    assert int(os.environ["KMP_BLOCKTIME"]) < 200  # what Intel's takes by default


@pytest.mark.parametrize("name", NAMES)
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "7")
    wait_without_spinning()
    assert {found: os.environ[found] for found in NAMES if found in os.environ} == {name: "7"}
