"""What could be forecast of a planted market: by its features at best, and by the oracle who knows its truth.

Both are fitted to other markets of the same nature, more signals than a user has: a forecast of a trade's gross return
over its volatility, linear or of boosted trees, whichever forecasts better the markets that neither was fitted to.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from benchmarks.planted import Form, PlantedMarket
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.dataset import Dataset, build_dataset
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray
from ml4t_actor.settings import TrainingSettings

FIRST_POPULATION_SEED = 100_000
HELD_OUT = 4  # one market in so many decides which of the two forecasts serves
LIMIT = 3.0  # standard deviations


class Forecast(Protocol):
    """Gross return over volatility from features."""

    def predict(self, X: FloatArray) -> FloatArray:
        """Return it for every row."""


class Nothing:
    """The forecast of a market in which there is nothing to forecast."""

    def predict(self, X: FloatArray) -> FloatArray:
        """Return zero for every row."""
        return np.zeros(len(X))


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """The labelled signals of one market.

    Attributes
    ----------
    features : float64 (n, n_features)
        What the model sees.
    truth : float64 (n, n_features + 4)
        What the oracle sees besides.
    gross : float64 (n,)
        Return in the signal's direction before costs, over volatility.
    """

    features: FloatArray
    truth: FloatArray
    gross: FloatArray


def labelled(market: PlantedMarket, settings: TrainingSettings) -> Dataset:
    """Return the labelled signals of a planted market with the features of the shipped model."""
    return build_dataset(market.bars, market.signals, settings=settings, feature_names=META_FEATURE_NAMES)


def sample_of(market: PlantedMarket, form: Form, rows: LabelledRows, settings: TrainingSettings) -> Sample:
    """Return what the model and the oracle see of labelled signals.

    The oracle knows the state or the factor in the signal's direction, and the true volatility: the drift is
    proportional to their product.
    """
    at = np.searchsorted(market.bars.ts_event, rows.label_start)
    truth = market.truth[at] * (rows.side if form == "flow" else 1.0)
    ratio = market.volatility[at] * np.sqrt(settings.labels.horizon_bars) / rows.volatility
    known = np.column_stack([rows.X, truth, ratio, truth * ratio, truth**3])
    return Sample(rows.X, known, rows.ret / rows.volatility)


def best_forecast(inputs: list[FloatArray], gross: list[FloatArray]) -> Forecast:
    """Return the better of a linear forecast and boosted trees, by the squared error on the last of the markets.

    Parameters
    ----------
    inputs, gross : list of float64 (n, n_inputs) and (n,)
        One of each for every market.
    """
    fitted = max(1, len(inputs) - max(1, len(inputs) // HELD_OUT))
    X, y = np.concatenate(inputs[:fitted]), np.concatenate(gross[:fitted])
    held_X, held_y = np.concatenate(inputs[fitted:] or inputs), np.concatenate(gross[fitted:] or gross)
    bound = FunctionTransformer(np.clip, kw_args={"a_min": -LIMIT, "a_max": LIMIT})
    candidates = (
        make_pipeline(StandardScaler(), bound, Ridge(alpha=1e-3 * len(y))),
        HistGradientBoostingRegressor(
            max_iter=150, learning_rate=0.05, max_depth=3, min_samples_leaf=500, early_stopping=False
        ),
    )
    models: list[Forecast] = [model.fit(X, y) for model in candidates]
    return min(models, key=lambda model: float(np.mean((held_y - model.predict(held_X)) ** 2)))
