"""The rival that anyone can have in ten lines: river's online logistic regression, learning as outcomes come in."""

import heapq

import numpy as np
from river import linear_model, optim, preprocessing

from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray

RATES = (0.0003, 0.001, 0.003, 0.01)


def online_predictions(rows: LabelledRows, rate: float) -> FloatArray:
    """Return the probability of each row, float64 (n,), from outcomes that were known when it was given.

    Parameters
    ----------
    rows : LabelledRows
        In order of time.
    rate : float
        Of the stochastic gradient descent.
    """
    scaler = preprocessing.StandardScaler()
    model = linear_model.LogisticRegression(optim.SGD(rate), intercept_lr=rate)
    names = [str(column) for column in range(rows.X.shape[1])]
    open_rows: list[tuple[int, int, dict[str, float]]] = []
    out = np.empty(len(rows))
    labels, ends = rows.y.tolist(), rows.label_end.tolist()
    for i, (start, values) in enumerate(zip(rows.label_start.tolist(), rows.X.tolist(), strict=True)):
        while open_rows and open_rows[0][0] <= start:
            _, row, known = heapq.heappop(open_rows)
            model.learn_one(known, bool(labels[row]))
        features = dict(zip(names, values, strict=True))
        scaler.learn_one(features)
        scaled = scaler.transform_one(features)
        out[i] = model.predict_proba_one(scaled)[True]
        heapq.heappush(open_rows, (ends[i], i, scaled))
    return out
