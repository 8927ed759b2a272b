"""What the shipped size keeps of a planted edge, and what it loses where there is none.

Each planted market is traded on the last two fifths of its bars with a model that was trained on those before. A trade
returns what its label did, less the costs, sized by the shipped `IntegratedSizer`; a signal that comes while a trade is
open is not traded. Named baselines, traded by the very same rule: the *attainable* forecast, which is the best that the
model's features can know, learned from a population of other markets; and the *oracle*, who knows the planted truth
besides. Markets are scaled to the same realised volatility (the root of the sum of squared trade returns) before their
PnL is summed up; one in which nothing is traded counts as zero.

    python -m benchmarks.planted_account [--edges strong mixed] [--seeds 20] [--walks 50] [--population 12] [--jobs 1]
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from backtests.primaries import PRIMARIES, Primary
from backtests.training import TRAIN_SHARE
from benchmarks.planted import MU, Form, Nature, PlantedMarket, planted_market
from benchmarks.planted_forecasts import (
    FIRST_POPULATION_SEED,
    Forecast,
    Nothing,
    best_forecast,
    labelled,
    sample_of,
)
from benchmarks.progress import show
from ml4t_actor.fan_out import fan_out
from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.odds import with_odds
from ml4t_actor.labeling.rows import LabelledRows
from ml4t_actor.market_data import FloatArray
from ml4t_actor.report.signal_fates import entered
from ml4t_actor.settings import TrainingSettings, ValidationSettings
from ml4t_actor.strategy.sizing import IntegratedSizer, break_even_probability
from ml4t_actor.training.loop import TrainingLoop

Edges = Literal["moderate", "strong", "mixed"]
Kind = tuple[Form, str, float]  # of a market: form, primary and drift

# Drift in multiples of `MU`, in turns; at 1 the truth ranks signals with an AUC of about 0.61, at 2 of 0.70.
EDGES: dict[Edges, tuple[float, ...]] = {
    "moderate": (1.0,),
    "strong": (2.0,),
    "mixed": (0.0, 2.0 / 3.0, 4.0 / 3.0, 2.0),
}
KINDS: tuple[tuple[Form, str], ...] = tuple((form, name) for form in ("regime", "flow") for name in PRIMARIES)
POPULATION = 12  # markets of each kind that the attainable forecast and the oracle's are fitted to
OF_ATTAINABLE, OF_ORACLE, OF_FLAT_LOSS = 0.8, 0.4, 0.05  # what is asked for
ACCOUNTS = (
    "flat",
    "seed",
    "model",
    "attainable",
    "oracle",
    "model, all or nothing",
    "oracle, all or nothing",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountTask:
    """One market to be traded.

    Attributes
    ----------
    form, primary, seed, mu
        As for `planted_market`.
    forecasts : mapping
        The attainable forecast and the oracle's; empty on a walk, where both know that there is nothing.
    """

    form: Form
    primary: str
    seed: int
    mu: float | None
    nature: Nature
    settings: TrainingSettings
    forecasts: Mapping[str, Forecast]


@dataclass(frozen=True, slots=True)
class Traded:
    """The trades of one account in one market.

    Attributes
    ----------
    pnl : float
        Sum of their returns on equity.
    volatility : float
        Root of the sum of their squares.
    trades : int
    expected : float
        What the oracle expects of these trades: the PnL without its luck.
    """

    pnl: float
    volatility: float
    trades: int
    expected: float

    @property
    def scaled(self) -> float:
        """PnL at a realised volatility of one; zero where nothing was traded."""
        return self.pnl / self.volatility if self.volatility > 0.0 else 0.0

    @property
    def scaled_expected(self) -> float:
        """What the oracle expects at a realised volatility of one."""
        return self.expected / self.volatility if self.volatility > 0.0 else 0.0


Result = dict[str, Traded]


def traded(rows: LabelledRows, size: FloatArray, cost: float, oracle_net: FloatArray) -> Traded:
    """Return what signals of these sizes (fractions of equity) earn, one trade at a time.

    `oracle_net` is the oracle's expected net return of each, over volatility.
    """
    taken = entered(rows.label_start, rows.label_end, np.zeros(len(rows), np.int64), size > 0.0)
    returns = size[taken] * (rows.ret[taken] - cost)
    expected = size[taken] * rows.volatility[taken] * oracle_net[taken]
    return Traded(
        float(returns.sum()),
        float(np.sqrt(np.square(returns).sum())),
        int(taken.sum()),
        float(expected.sum()),
    )


@dataclass(frozen=True, slots=True, eq=False)
class LaterSignals:
    """The later signals of a market, with what the model says of them.

    Attributes
    ----------
    rows : LabelledRows
    strength, regime_weight, toxicity, confidence : float64 (n,)
    net : float64 (n,)
        The model's expected net return over volatility; minus infinity where it is not asked.
    """

    rows: LabelledRows
    strength: FloatArray
    regime_weight: FloatArray
    toxicity: FloatArray
    confidence: FloatArray
    net: FloatArray


def tested(market: PlantedMarket, settings: TrainingSettings) -> LaterSignals:
    """Train on the earlier part of a market, and answer the signals of the later one."""
    split = int(market.bars.ts_event[int(TRAIN_SHARE * len(market.bars))])
    before, given = market.bars.ts_event < split, market.signals.ts_event < split
    loop = TrainingLoop(settings, feature_names=META_FEATURE_NAMES)
    bundle = loop.train(market.bars[before], market.signals[given]).bundle
    dataset = labelled(market, settings)
    later = dataset.label_start >= split
    rows = with_odds(dataset[later], settings.labels, bundle.exit_times)
    assert bundle.regime is not None
    regimes = bundle.regime.filter(dataset.regime_inputs[0])[dataset.regime_rows[later, 1]]
    answers = bundle.model.answer_rows(rows.X, rows.odds, rows.volatility)
    cost, slope = settings.labels.cost, bundle.return_slope
    expected = bundle.model.expected_return(answers.learned, rows.volatility, cost, slope)
    known = ((bundle.feature_low <= rows.X) & (bundle.feature_high >= rows.X)).all(
        axis=1
    )  # else `novel_input`
    return LaterSignals(
        rows=rows,
        strength=rows.X[:, META_FEATURE_NAMES.index("strength")],
        regime_weight=np.array([bundle.regime.weight(row) for row in regimes]),
        toxicity=rows.X[:, META_FEATURE_NAMES.index("toxicity")],
        confidence=answers.confidence,
        net=np.where(known, expected / 1e4 / rows.volatility, -np.inf),
    )


def shipped_size(found: LaterSignals, net: FloatArray) -> FloatArray:
    """Return the size of every signal by the shipped rule, for an expected net return over volatility."""
    sizer = IntegratedSizer()
    columns = (
        found.strength,
        found.confidence,
        found.regime_weight,
        found.toxicity,
        net,
        found.rows.volatility,
    )
    return np.array(
        [
            sizer.calculate(
                strength,
                confidence,
                weight,
                toxicity,
                expected_return=1e4 * m * volatility,
                volatility=volatility,
            )
            / volatility
            for strength, confidence, weight, toxicity, m, volatility in zip(*columns, strict=True)
        ]
    )


def seed_size(found: LaterSignals, settings: TrainingSettings) -> FloatArray:
    """Return the sizes of before: the product of strength, Kelly's bet, regime weight and toxicity."""
    needed = np.array(
        [
            break_even_probability(
                settings.labels.profit_barrier, settings.labels.stop_barrier, settings.labels.cost, v
            )
            for v in found.rows.volatility
        ]
    )
    bet = np.clip((found.confidence - needed) / np.maximum(1.0 - needed, 1e-12), 0.0, None)
    sizes: FloatArray = np.sqrt(found.strength) * bet * found.regime_weight * (1.0 - found.toxicity)
    return sizes


def account(task: AccountTask) -> Result:
    """Trade one market in every way."""
    market = planted_market(task.form, PRIMARIES[task.primary](), task.seed, mu=task.mu, nature=task.nature)
    found = tested(market, task.settings)
    rows, cost = found.rows, task.settings.labels.cost
    sample = sample_of(market, task.form, rows, task.settings)
    at_risk = np.sqrt(found.strength) / rows.volatility
    net = {"model": found.net} | {
        name: forecast.predict(sample.truth if name == "oracle" else sample.features) - cost / rows.volatility
        for name, forecast in task.forecasts.items()
    }
    sizes = {"flat": at_risk, "seed": seed_size(found, task.settings)}
    sizes |= {name: shipped_size(found, m) for name, m in net.items()}
    sizes |= {f"{name}, all or nothing": np.where(m > 0.0, at_risk, 0.0) for name, m in net.items()}
    truth = net.get("oracle", -cost / rows.volatility)
    return {name: traded(rows, size, cost, truth) for name, size in sizes.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PopulationTask:
    """One kind of market, whose best forecasts are to be fitted."""

    form: Form
    primary: str
    mu: float
    n_markets: int
    nature: Nature
    settings: TrainingSettings


def population(task: PopulationTask) -> dict[str, Forecast]:
    """Fit the attainable forecast and the oracle's to other markets of the same kind."""
    samples = []
    for seed in range(FIRST_POPULATION_SEED, FIRST_POPULATION_SEED + task.n_markets):
        primary: Primary = PRIMARIES[task.primary]()
        market = planted_market(task.form, primary, seed, mu=task.mu, nature=task.nature)
        samples.append(sample_of(market, task.form, labelled(market, task.settings), task.settings))
    gross = [sample.gross for sample in samples]
    return {
        "attainable": best_forecast([sample.features for sample in samples], gross),
        "oracle": best_forecast([sample.truth for sample in samples], gross),
    }


def strength_of(edges: Edges, seed: int) -> float:
    """Return the drift that a market has, in multiples of `MU`."""
    return EDGES[edges][seed // len(KINDS) % len(EDGES[edges])]


def kinds_of(edges: Edges, n_seeds: int) -> list[Kind]:
    """Return form, primary and drift of one market for each seed: they take turns."""
    return [
        (form, primary, strength_of(edges, seed) * MU[form, PRIMARIES[primary]().source])
        for seed in range(n_seeds)
        for form, primary in [KINDS[seed % len(KINDS)]]
    ]


def populations(
    kinds: Sequence[Kind], n_markets: int, nature: Nature, settings: TrainingSettings, n_jobs: int | None
) -> dict[Kind, dict[str, Forecast]]:
    """Return the best forecasts of each kind of market; where nothing is planted they are known to be none."""
    different = [kind for kind in dict.fromkeys(kinds) if kind[2] > 0.0]
    tasks = [
        PopulationTask(
            form=form, primary=primary, mu=mu, n_markets=n_markets, nature=nature, settings=settings
        )
        for form, primary, mu in different
    ]
    fitted = dict(zip(different, fan_out(population, tasks, n_jobs=n_jobs, progress=show), strict=True))
    nothing: dict[str, Forecast] = {"attainable": Nothing(), "oracle": Nothing()}
    return {kind: fitted.get(kind, nothing) for kind in kinds}


def planted_tasks(
    edges: Edges,
    n_seeds: int,
    nature: Nature,
    settings: TrainingSettings,
    forecasts: Mapping[Kind, Mapping[str, Forecast]],
) -> list[AccountTask]:
    """Return one market for each seed."""
    return [
        AccountTask(
            form=form, primary=primary, seed=seed, mu=mu, nature=nature, settings=settings,
            forecasts=forecasts[form, primary, mu],
        )
        for seed, (form, primary, mu) in enumerate(kinds_of(edges, n_seeds))
    ]  # fmt: skip


def walk_tasks(n_seeds: int, nature: Nature, settings: TrainingSettings) -> list[AccountTask]:
    """Return markets without an edge: walks, and regimes and flow that mean nothing, in turns."""
    kinds: list[tuple[Form, str]] = [
        (form, primary) for form in ("walk", "regime", "flow") for primary in PRIMARIES
    ]
    return [
        AccountTask(
            form=form, primary=primary, seed=seed, mu=0.0, nature=nature, settings=settings, forecasts={}
        )
        for seed in range(n_seeds)
        for form, primary in [kinds[seed % len(kinds)]]
    ]  # fmt: skip


def share(results: Sequence[Result], account: str, of: str, *, expected: bool = False) -> float:
    """Return one account's PnL as a share of another's, each market at the same realised volatility.

    With `expected` what the oracle expects of the trades stands in for what they made.
    """
    own, whole = (
        sum(result[name].scaled_expected if expected else result[name].scaled for result in results)
        for name in (account, of)
    )
    return own / whole if whole else float("nan")


def loss_share(results: Sequence[Result]) -> float:
    """Return the enriched account's loss as a share of the flat one's, at the same risk per trade."""
    return sum(result["model"].pnl for result in results) / sum(result["flat"].pnl for result in results)


def report(edges: str, results: Sequence[Result]) -> str:
    """Return the table of one kind of markets."""
    lines = [
        f"{edges:24}  trades   PnL at equal volatility   of attainable   of oracle   expected by the oracle: "
        "of attainable   of oracle"
    ]
    for name in ACCOUNTS:
        trades = np.mean([result[name].trades for result in results])
        scaled = sum(result[name].scaled for result in results)
        lines.append(
            f"  {name:22}  {trades:6.0f}   {scaled:23.1f}   {share(results, name, 'attainable'):13.2f}   "
            f"{share(results, name, 'oracle'):9.2f}   {share(results, name, 'attainable', expected=True):38.2f}   "
            f"{share(results, name, 'oracle', expected=True):9.2f}"
        )
    return "\n".join(lines)


def walk_report(results: Sequence[Result]) -> str:
    """Return what was lost where there is no edge."""
    lost = {name: sum(result[name].pnl for result in results) for name in ("flat", "model")}
    idle = sum(result["model"].trades == 0 for result in results)
    trades = {name: sum(result[name].trades for result in results) for name in ("flat", "model")}
    return (
        f"no edge: {len(results)} markets; flat {lost['flat']:+.0f} volatilities in {trades['flat']:,} trades, "
        f"enriched {lost['model']:+.1f} in {trades['model']:,} ({idle} markets not traded): loss as a share of flat's "
        f"{loss_share(results):.3f} (asked for: at most {OF_FLAT_LOSS})"
    )


def main(
    edges_of: Sequence[Edges] = tuple(EDGES),
    *,
    quick: bool = False,
    n_seeds: int = 20,
    n_walks: int = 50,
    n_population: int = POPULATION,
    n_bars: int = 120_000,
    n_jobs: int | None = None,
) -> None:
    """Print the tables."""
    if quick:
        n_seeds, n_walks, n_population, n_bars, n_jobs = 1, 2, 2, 20_000, 1
    # What validates a model does not change it, and takes most of the time of a training.
    settings = TrainingSettings(validation=ValidationSettings(n_folds=1, bootstrap_samples=10))
    nature = Nature(n_bars=n_bars)
    print(f"planted markets of {n_bars:,} bars, costs of {1e4 * settings.labels.cost:g} bp")
    kinds = [kind for edges in edges_of for kind in kinds_of(edges, n_seeds)]
    forecasts = populations(kinds, n_population, nature, settings, n_jobs)
    for edges in edges_of:
        tasks = planted_tasks(edges, n_seeds, nature, settings, forecasts)
        print(
            report(f"{edges} edges, {n_seeds} markets", fan_out(account, tasks, n_jobs=n_jobs, progress=show))
        )
    print(f"asked of the model: {OF_ATTAINABLE} of the attainable, {OF_ORACLE} of the oracle's")
    if not n_walks:
        return
    walks = walk_tasks(n_walks, nature, settings)
    print(walk_report(fan_out(account, walks, n_jobs=n_jobs, progress=show)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the size keeps of an edge.")
    parser.add_argument("--edges", nargs="+", choices=list(EDGES), default=list(EDGES))
    parser.add_argument("--seeds", type=int, default=20, help="markets of each kind of edges")
    parser.add_argument(
        "--population", type=int, default=POPULATION, help="markets to fit the best forecasts to"
    )
    parser.add_argument("--walks", type=int, default=50, help="markets without an edge")
    parser.add_argument("--bars", type=int, default=120_000)
    parser.add_argument("--jobs", type=int, help="worker processes; as many as CPUs by default")
    given = parser.parse_args()
    main(
        given.edges,
        n_seeds=given.seeds,
        n_walks=given.walks,
        n_population=given.population,
        n_bars=given.bars,
        n_jobs=given.jobs,
    )
