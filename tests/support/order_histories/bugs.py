"""Known bugs, to be planted: whether the checker finds them says what it is worth."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

type Plant = Callable[[pytest.MonkeyPatch], None]

BUGS: dict[str, Plant] = {}


def _bug(plant: Plant) -> Plant:
    BUGS[plant.__name__] = plant
    return plant


@contextmanager
def planted(name: str) -> Iterator[None]:
    """While the context lasts, the code has the bug of this name; none if it is empty."""
    with pytest.MonkeyPatch.context() as patch:
        if name:
            BUGS[name](patch)
        yield
