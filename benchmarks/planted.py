"""Markets in which the truth is planted: what is to be found is known, or that there is nothing.

The log price is a Brownian motion of stochastic volatility, so that the closed form of `random_walk_odds` is right but
for what is planted. Volatility is a log-normal autoregression, constant within a bar but for a factor that makes the
bar's shock a Student t with five degrees of freedom. Upon that one of three forms is planted:

- ``regime``: a hidden state, up or down, changes after 1,500 bars in the mean. For 60 bars after each signal of the
  primary the price drifts with the signal in the one state and against it in the other, `mu` volatilities a bar; the
  first state is the more volatile, by 1.6.
- ``flow``: a latent factor with a half-life of 90 bars drifts the price by `mu` volatilities a bar times its value, and
  takers lean with it.
- ``walk``: nothing; the price is a martingale.

With ``mu=0`` regimes and flow stay, and mean nothing for the price.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Literal, get_args

import numpy as np

from backtests.primaries import MeanReverter, Primary, TrendFollower
from backtests.synthetic import START_NS
from ml4t_actor.kernels.jit import kernel
from ml4t_actor.labeling.dataset import build_dataset
from ml4t_actor.market_data import MINUTE_NS, Bars, FloatArray, Signals
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.validation.scores import auc

Form = Literal["regime", "flow", "walk"]

DRIFT_BARS = 60
# Drift in volatilities of a bar at which ranking the signals by the truth has an AUC of 0.62, by form and primary;
# measured by `python -m benchmarks.planted`.
MU = {
    ("regime", "trend_follower"): 0.060,
    ("regime", "mean_reverter"): 0.044,
    ("flow", "trend_follower"): 0.047,
    ("flow", "mean_reverter"): 0.050,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Nature:
    """What a planted market is like; the defaults are those of the positive control.

    Attributes
    ----------
    n_bars : int, default 120_000
        One-minute bars, without gaps.
    bar_volatility : float, default 0.001
        Median standard deviation of a bar's log return.
    volatility_spread : float, default 0.35
        Standard deviation of its logarithm.
    volatility_halflife_bars : float, default 720.0
        Half-life of that logarithm.
    day_shape : float, default 0.0
        How much volatility follows a U over the day: by this factor less at noon than at midnight, in logarithms.
    regime_bars : float, default 1500.0
        Mean length of a state.
    regime_volatility : float, default 1.6
        Volatility of the state in which signals pay over that of the other.
    flow_halflife_bars : float, default 90.0
        Half-life of the latent factor.
    flow_lean : float, default 0.4
        Log odds of a taker's buying per standard deviation of the factor.
    """

    n_bars: int = 120_000
    bar_volatility: float = 0.001
    volatility_spread: float = 0.35
    volatility_halflife_bars: float = 720.0
    day_shape: float = 0.0
    regime_bars: float = 1_500.0
    regime_volatility: float = 1.6
    flow_halflife_bars: float = 90.0
    flow_lean: float = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class PlantedMarket:
    """Bars, the primary's signals on them, and what only an oracle knows.

    Attributes
    ----------
    bars : Bars
        With taker volumes.
    signals : Signals
        Those of `batch_signals`, exits included.
    truth : float64 (n_bars,)
        Known to the oracle at each close: 1 or -1 for the state, or the factor's value; 0 on a walk.
    volatility : float64 (n_bars,)
        Standard deviation of the bar's log return, the factor of the fat tails apart.
    """

    bars: Bars
    signals: Signals
    truth: FloatArray
    volatility: FloatArray


@kernel
def _first_order(shocks: FloatArray, persistence: float, state: float) -> FloatArray:
    out = np.empty_like(shocks)
    for i in range(len(shocks)):
        state = persistence * state + shocks[i]
        out[i] = state
    return out


def autoregression(rng: np.random.Generator, n: int, halflife_bars: float) -> FloatArray:
    """Return a stationary Gaussian AR(1) path (n,) of unit variance."""
    persistence = 0.5 ** (1.0 / halflife_bars)
    shocks = rng.standard_normal(n) * sqrt(1.0 - persistence**2)
    return _first_order(shocks, persistence, float(rng.standard_normal()))


def two_states(rng: np.random.Generator, n: int, mean_bars: float) -> FloatArray:
    """Return a path (n,) of 1 and -1 whose spells have geometric lengths."""
    changes = rng.random(n) < 1.0 / mean_bars
    odd = (np.cumsum(changes) + int(rng.integers(2))) % 2
    return 1.0 - 2.0 * odd.astype(np.float64)


def planted_market(
    form: Form,
    primary: Primary,
    seed: int,
    *,
    mu: float | None = None,
    nature: Nature = Nature(),
) -> PlantedMarket:
    """Return a market of one form, and the signals of a primary that trades in it.

    Parameters
    ----------
    form : {'regime', 'flow', 'walk'}
        See the module.
    primary : Primary
        Reset first. In the regime form its signals move the price.
    seed : int
        Of everything.
    mu : float, optional
        Drift in volatilities of a bar; by default that of `MU`.
    nature : Nature, optional
        Everything else.

    Raises
    ------
    ValueError
        If there is no such form, a walk shall drift, or `mu` is not given for a primary that `MU` does not know.

    References
    ----------
    High and low are drawn from the extremes of a Brownian bridge: Asmussen, Glynn, Pitman (1995), "Discretization
    error in simulation of one-dimensional reflecting Brownian motion", Annals of Applied Probability 5(4).
    """
    drift = _drift(form, primary, mu)
    n = nature.n_bars
    rng = np.random.default_rng([get_args(Form).index(form), seed])
    ts_close = START_NS + np.arange(1, n + 1, dtype=np.int64) * MINUTE_NS
    level = nature.volatility_spread * autoregression(rng, n, nature.volatility_halflife_bars)
    hour_angle = 2.0 * np.pi * (ts_close / MINUTE_NS % 1440.0) / 1440.0
    level += 0.5 * nature.day_shape * np.cos(hour_angle)
    truth = np.zeros(n)
    if form == "regime":
        truth = two_states(rng, n, nature.regime_bars)
        level += 0.5 * np.log(nature.regime_volatility) * truth
    elif form == "flow":
        truth = autoregression(rng, n, nature.flow_halflife_bars)
    volatility = nature.bar_volatility * np.exp(level)

    # A Student t is a Gaussian whose variance is drawn anew for each bar, with which its high and low agree.
    spread = volatility * np.sqrt(3.0 / rng.chisquare(5.0, n))
    shock = spread * rng.standard_normal(n)
    up, down = -2.0 * spread**2 * np.log1p(-rng.random((2, n)))
    # What is known at a close moves the price of the next bar.
    pull = np.concatenate([[0.0], drift * volatility[1:] * truth[:-1]])
    free, bound = (pull, np.zeros(n)) if form == "flow" else (np.zeros(n), pull)
    open_, high, low, close, events = _traded(primary, ts_close, shock + free, bound, up, down)

    move = np.log(close / open_) / volatility
    amount = 1_000.0 * np.exp(1.2 * level + 0.35 * (np.abs(move) - 0.7) + 0.6 * autoregression(rng, n, 5.0))
    lean = 0.45 * move + (nature.flow_lean * truth if form == "flow" else 0.0) + 0.3 * rng.standard_normal(n)
    return PlantedMarket(
        Bars(ts_close, open_, high, low, close, amount, amount / (1.0 + np.exp(-lean))),
        events,
        truth,
        volatility,
    )


def _drift(form: Form, primary: Primary, mu: float | None) -> float:
    if form not in get_args(Form):
        raise ValueError(f"`form` was {form!r}, must be one of {', '.join(get_args(Form))}")
    if form == "walk":
        if mu:
            raise ValueError(
                f"`mu` was {mu}, but a walk does not drift: leave it out, or choose another form"
            )
        return 0.0
    if mu is not None:
        return mu
    if (form, primary.source) not in MU:
        raise ValueError(f"`mu` must be given for the primary {primary.source!r}, which is not calibrated")
    return MU[form, primary.source]


def _traded(
    primary: Primary,
    ts_close: np.ndarray[tuple[int], np.dtype[np.int64]],
    move: FloatArray,
    bound: FloatArray,
    up: FloatArray,
    down: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray, Signals]:
    """Step prices bar by bar with the primary: for `DRIFT_BARS` after its signal `bound` is added in its direction."""
    primary.reset()
    update: Callable[..., tuple[int, float] | None] = primary.update
    price, log_price = 100.0, log(100.0)
    side, last = 0, DRIFT_BARS
    rows: list[tuple[float, float, float, float]] = []
    events: list[tuple[int, int, float]] = []
    columns = zip(ts_close.tolist(), move.tolist(), bound.tolist(), up.tolist(), down.tolist(), strict=True)
    for ts, step, pull, above, below in columns:
        last += 1
        if last <= DRIFT_BARS:
            step += side * pull
        open_, price = price, exp(log_price + step)
        # exp of the larger logarithm can come out a bit below exp of the smaller one
        high = max(exp(log_price + 0.5 * (step + sqrt(step * step + above))), open_, price)
        low = min(exp(log_price + 0.5 * (step - sqrt(step * step + below))), open_, price)
        log_price += step
        rows.append((open_, high, low, price))
        event = update(ts, open_, high, low, price, 1.0)
        if event is not None:
            events.append((ts, *event))
            if event[0]:
                side, last = event[0], 0
    prices = np.array(rows).T.copy()
    given = Signals(
        np.array([event[0] for event in events], dtype=np.int64),
        np.array([event[1] for event in events], dtype=np.int8),
        np.array([event[2] for event in events], dtype=np.float64),
    )
    return prices[0], prices[1], prices[2], prices[3], given


def oracle_auc(market: PlantedMarket, form: Form, settings: TrainingSettings) -> tuple[float, float, int]:
    """Return how well the truth alone ranks the labelled signals, their hit rate, and their number."""
    rows = build_dataset(market.bars, market.signals, settings=settings, feature_names=("log_volatility",))
    truth = market.truth[np.searchsorted(market.bars.ts_event, rows.label_start)]
    score = truth * rows.side if form == "flow" else truth
    return auc(rows.y, score), float(rows.y.mean()), len(rows)


def main(*, quick: bool = False) -> None:
    """Print what an oracle achieves, with and without what is planted."""
    n_seeds, nature = (1, Nature(n_bars=20_000)) if quick else (10, Nature())
    print(f"{nature.n_bars:,} bars, {n_seeds} seeds: AUC of the truth alone, mean and standard deviation")
    forms: tuple[tuple[Form, float | None], ...] = (
        ("regime", None),
        ("flow", None),
        ("regime", 0.0),
        ("flow", 0.0),
        ("walk", None),
    )
    settings = TrainingSettings()
    for (form, mu), primary in itertools.product(forms, (TrendFollower(), MeanReverter())):
        markets = (planted_market(form, primary, seed, mu=mu, nature=nature) for seed in range(n_seeds))
        found = np.array([oracle_auc(market, form, settings) for market in markets])
        area, rate, rows = found.mean(axis=0)
        drift = MU.get((form, primary.source), 0.0) if mu is None else mu
        print(
            f"{form:7} {primary.source:15} mu {drift:5.3f}  AUC {area:.3f} ({found[:, 0].std():.3f})  "
            f"hit rate {rate:.3f}  {rows:,.0f} labelled signals"
        )


if __name__ == "__main__":
    main()
