"""One row: the compiled kernel against scikit-learn's own `predict_proba`, per call."""

from collections.abc import Callable
from time import perf_counter_ns

import numpy as np

from ml4t_actor.meta_model.estimator import MetaModel
from ml4t_actor.settings import ModelSettings

N_ROWS, N_FEATURES = 20_000, 20
KERNEL_CALLS, SKLEARN_CALLS = 20_000, 300
QUICK = 10  # times fewer


def call_times_us(call: Callable[[int], object], n: int) -> tuple[float, float]:
    """Return p50 and p99 of one call, microseconds."""
    for i in range(min(n, 50)):
        call(i)
    times = np.empty(n)
    for i in range(n):
        start = perf_counter_ns()
        call(i)
        times[i] = perf_counter_ns() - start
    return float(np.percentile(times, 50)) / 1e3, float(np.percentile(times, 99)) / 1e3


def measure(estimator: str, fewer: int) -> str:
    n_rows = N_ROWS // fewer
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n_rows, N_FEATURES))
    y = 0.3 * X[:, 0] + rng.normal(size=n_rows) > 0.0
    model = MetaModel(ModelSettings(estimator=estimator)).fit(X, y)  # type: ignore[arg-type]
    rows = [np.ascontiguousarray(row) for row in X]

    kernel = call_times_us(lambda i: model.get_confidence(rows[i % n_rows]), KERNEL_CALLS // fewer)
    sklearn = call_times_us(
        lambda i: model.predict_proba(X[i % n_rows : i % n_rows + 1]), SKLEARN_CALLS // fewer
    )
    ratios = [slow / fast for slow, fast in zip(sklearn, kernel, strict=True)]
    return f"{estimator:24s}" + "".join(f"{value:13,.1f}" for value in (*kernel, *sklearn, *ratios))


def main(*, quick: bool = False) -> None:
    print(f"{N_FEATURES} features, microseconds per call")
    heads = ("kernel p50", "p99", "sklearn p50", "p99", "ratio p50", "p99")
    print(f"{'estimator':24s}" + "".join(f"{head:>13s}" for head in heads))
    for name in ("logistic", "hist_gradient_boosting"):
        print(measure(name, QUICK if quick else 1))


if __name__ == "__main__":
    main()
