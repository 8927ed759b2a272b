"""What a rule of size keeps of a known edge, at equal realised risk, and what it risks at all.

No engine and no bars: each trade ends at one of two barriers a volatility away, with a drift that is known. A ridge
whose width is averaged by evidence learns it from as many trades as are traded afterwards. What has been learned is
sized by the shipped `IntegratedSizer` with ramps of different length, and by the product that it was until 0.1.0.
Named baseline: the shipped size with the true expected return. Each market's PnL is scaled to the same realised
volatility before they are summed up.

Three natures of edge: *state*, there or not, and hardly seen; *flow*, which grows with a feature and saturates;
*linear*, which grows with it without end. Which ramp keeps most depends on that: the short one where the edge
saturates, the long one, a size in proportion, where it does not. In markets without any edge the loss is compared with
that of full sizes, not scaled.

    python -m benchmarks.sizing [--seeds 40] [--trades 4000]
"""

import argparse
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ml4t_actor.market_data import FloatArray
from ml4t_actor.strategy.sizing import IntegratedSizer

Nature = Literal["state", "flow", "linear", "none"]

COST = 0.0009
FEATURES = 20
WIDTHS = (1e-4, 1e-3, 1e-2)  # variances of the coefficients; half of the prior is on none
OFFSET_VARIANCE = 0.05**2
EDGES: tuple[tuple[Nature, float], ...] = (
    ("state", 0.2),
    ("state", 0.35),
    ("flow", 0.2),
    ("flow", 0.35),
    ("linear", 0.2),
    ("linear", 0.35),
)
RAMPS = {"all or nothing": 1e-9, "shipped": IntegratedSizer().ramp, "in proportion": 2.0}
PRODUCT = "product of 0.1.0"
RULES = (*RAMPS, PRODUCT)


@dataclass(frozen=True, slots=True)
class Trades:
    """Trades of one market after those that were learned from.

    Attributes
    ----------
    volatility : float64 (n,)
        Over the horizon, as a log return.
    net : float64 (n,)
        What each earned after costs, in volatilities.
    expected, told : float64 (n,)
        What it was expected to earn: in truth, and by what was learned.
    strength, regime_weight, toxicity : float64 (n,)
    """

    volatility: FloatArray
    net: FloatArray
    expected: FloatArray
    told: FloatArray
    strength: FloatArray
    regime_weight: FloatArray
    toxicity: FloatArray


def trades_of(nature: Nature, drift: float, seed: int, n: int) -> Trades:
    """Return `n` trades of a market with an edge of this nature, `drift` volatilities where it is full."""
    rng = np.random.default_rng(seed)
    features = rng.standard_t(5, (2 * n, FEATURES)) / np.sqrt(5 / 3)
    volatility = 0.006 * np.exp(0.4 * rng.standard_normal(2 * n))
    told_by = features[:, 0]
    gross = {
        "state": np.where(told_by + 0.7 * rng.standard_normal(2 * n) > 0.5, drift, 0.0),
        "flow": drift * np.tanh(2.0 * told_by),
        "linear": np.clip(drift / 2.0 * told_by, -0.9, 0.9),
        "none": np.zeros(2 * n),
    }[nature]
    ended = np.where(rng.random(2 * n) < (1.0 + gross) / 2.0, 1.0, -1.0)
    cost = COST / volatility
    later = slice(n, 2 * n)
    return Trades(
        volatility=volatility[later],
        net=(ended - cost)[later],
        expected=(gross - cost)[later],
        told=learned(features[:n], ended[:n], features[later]) - cost[later],
        strength=rng.random(n),
        regime_weight=rng.uniform(0.35, 0.55, n),
        toxicity=rng.random(n),
    )


def learned(x: FloatArray, y: FloatArray, later: FloatArray) -> FloatArray:
    """Return the mean of later returns by Bayesian ridges of unit noise, averaged by their evidence."""
    design, means, evidence = np.column_stack([np.ones(len(x)), x]), [], []
    for width in (0.0, *WIDTHS):
        k = 1 if width == 0.0 else 1 + x.shape[1]
        a, prior = design[:, :k], np.array([OFFSET_VARIANCE, *[width] * (k - 1)])
        hessian = a.T @ a + np.diag(1.0 / prior)
        coefficients = np.linalg.solve(hessian, a.T @ y)
        means.append(np.column_stack([np.ones(len(later)), later])[:, :k] @ coefficients)
        evidence.append(
            0.5 * (coefficients @ (a.T @ y) - np.linalg.slogdet(hessian)[1] - np.log(prior).sum())
            + np.log(0.5 if width == 0.0 else 0.5 / len(WIDTHS))
        )
    weights = np.exp(np.array(evidence) - max(evidence))
    mean: FloatArray = weights @ np.array(means) / weights.sum()
    return mean


def risks(trades: Trades, ramp: float, expected: FloatArray) -> FloatArray:
    """Return the size that the shipped sizer gives each trade, (n,): what it risks, in shares of a full size."""
    sizer = IntegratedSizer(ramp=ramp)
    columns = (trades.strength, trades.regime_weight, trades.toxicity, expected * 1e4)
    return np.array(
        [
            # The volatility is the unit here.
            sizer.factors(strength, 0.5, weight, toxicity, expected_return=told, volatility=1.0).size
            for strength, weight, toxicity, told in zip(*(c.tolist() for c in columns), strict=True)
        ]
    )


def product_risks(trades: Trades) -> FloatArray:
    """Return what the size of 0.1.0 risks, (n,): a product of five factors, in notional and not in risk.

    In units in which a full size at the median volatility is 1.
    """
    break_even = np.minimum(0.5 + COST / trades.volatility / 2.0, 1.0 - 1e-9)
    kelly = np.maximum(trades.told / 2.0 / (1.0 - break_even), 0.0)
    size = np.sqrt(trades.strength) * kelly * trades.regime_weight * (1.0 - trades.toxicity)
    scale: FloatArray = trades.volatility / np.median(trades.volatility)
    return size * scale


def scaled(risk: FloatArray, net: FloatArray) -> float:
    """Return the PnL at a realised volatility of one, 0.0 where nothing was traded."""
    returns = risk * net
    volatility = float(np.sqrt(np.square(returns).sum()))
    return float(returns.sum()) / volatility if volatility > 0.0 else 0.0


def rule_risks(trades: Trades) -> dict[str, FloatArray]:
    """Return what each rule risks with what was learned."""
    found = {name: risks(trades, ramp, trades.told) for name, ramp in RAMPS.items()}
    return found | {PRODUCT: product_risks(trades)}


def measure(nature: Nature, drift: float, seeds: int, n: int) -> dict[str, tuple[float, float]]:
    """Return of each rule the share of the PnL that the truth would have made, and the mean of what it risked."""
    pnl, risked, best = dict.fromkeys(RULES, 0.0), dict.fromkeys(RULES, 0.0), 0.0
    for seed in range(seeds):
        trades = trades_of(nature, drift, seed, n)
        best += scaled(risks(trades, RAMPS["shipped"], trades.expected), trades.net)
        for name, risk in rule_risks(trades).items():
            pnl[name] += scaled(risk, trades.net)
            risked[name] += float(risk.mean()) / seeds
    return {name: (pnl[name] / best, risked[name]) for name in RULES}


def loss_without_edge(seeds: int, n: int) -> dict[str, float]:
    """Return of each rule its loss where there is no edge, as a share of that of full sizes."""
    loss, flat = dict.fromkeys(RULES, 0.0), 0.0
    for seed in range(seeds):
        trades = trades_of("none", 0.0, seed, n)
        flat += float((np.sqrt(trades.strength) * trades.net).sum())
        for name, risk in rule_risks(trades).items():
            loss[name] += float((risk * trades.net).sum())
    return {name: loss[name] / flat for name in RULES}


def main(*, seeds: int = 40, n: int = 4_000, quick: bool = False) -> None:
    if quick:
        seeds, n = 2, 400
    print(
        f"share of the PnL of the true expected return, at equal risk; in brackets the mean risk\n{'':14}",
        end="",
    )
    print("".join(f"{name:>20}" for name in RULES))
    for nature, drift in EDGES:
        kept = measure(nature, drift, seeds, n)
        print(f"{nature:8} {drift:4.2f} ", end="")
        print("".join(f"{share:11.2f} ({risk:6.4f})" for share, risk in kept.values()), flush=True)
    print(
        f"{'no edge, loss':14}"
        + "".join(f"{share:12.3f}        " for share in loss_without_edge(seeds, n).values())
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sizing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--trades", type=int, default=4_000)
    arguments = parser.parse_args()
    main(seeds=arguments.seeds, n=arguments.trades)
