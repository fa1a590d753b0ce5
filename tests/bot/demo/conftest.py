"""The scripted server of the evaluation's tests."""

from tests.eval.conftest import stub

__all__ = ["stub"]
