"""Which of many cases of one kind the fast tier plays; `pytest -m slow` plays the others."""

from collections.abc import Iterable
from typing import Any

import pytest


def slow(*values, **options):
    """A case of a parametrisation that is left to the slow tier."""
    return pytest.param(*values, marks=pytest.mark.slow, **options)


def fast_only(values: Iterable[Any], *kept: Any, others: pytest.MarkDecorator = pytest.mark.slow) -> list[Any]:
    """All values, of which the kept ones alone are in the fast tier."""
    values = list(values)
    assert set(kept) <= set(values), f"no longer there: {set(kept) - set(values)}"
    return [value if value in kept else pytest.param(value, marks=others) for value in values]
