"""The one way in which this package compiles."""

from collections.abc import Callable
from typing import cast

import numba


def kernel[F: Callable[..., object]](function: F) -> F:
    """Compile `function` with numba, cached on disk, with IEEE division by zero and without the GIL."""
    return cast(F, numba.njit(function, cache=True, error_model="numpy", nogil=True))
