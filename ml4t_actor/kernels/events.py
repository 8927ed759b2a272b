"""The symmetric CUSUM filter, which samples a price path where it has moved."""

from math import log

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.kernels.jit import kernel
from ml4t_actor.market_data import FloatArray


@kernel
def cusum_sides(close: FloatArray, volatility: FloatArray, threshold: float) -> NDArray[np.int8]:
    """Return int8 (n,): 1 or -1 where the move since the last event exceeds `threshold` volatilities, else 0."""
    n = len(close)
    side = np.zeros(n, dtype=np.int8)
    up = 0.0
    down = 0.0
    for i in range(1, n):
        r = log(close[i] / close[i - 1])
        up = max(0.0, up + r)
        down = min(0.0, down + r)
        limit = threshold * volatility[i]
        if not limit > 0.0:
            continue
        if up > limit:
            side[i] = 1
        elif down < -limit:
            side[i] = -1
        if side[i] != 0:
            up = 0.0
            down = 0.0
    return side
