"""How often the retrain monitor is wrong, and how soon it is right.

Streams of confidences and outcomes are simulated by the year and run through a compiled restatement of the monitor's
detectors; one part drives `RetrainMonitor` itself. A year is 525,600 one-minute bars.

    python -m benchmarks.monitor [--years 10] [--runs 200]
"""

import argparse
import math
from collections.abc import Iterator

import numba
import numpy as np
from numpy.typing import NDArray

from ml4t_actor.indicators.features import META_FEATURE_NAMES
from ml4t_actor.labeling.triple_barrier import uniqueness_weights
from ml4t_actor.market_data import Signals
from ml4t_actor.monitoring.monitor import MonitorBaseline, RetrainMonitor
from ml4t_actor.settings import LabelSettings, MonitorSettings, TrainingSettings
from ml4t_actor.validation.scores import log_losses

Array = NDArray[np.float64]

YEAR = 525_600
MINUTE_NS = 60 * 10**9
WINDOW = 1_000
HORIZON, STEP = 60, 5
DETECTORS = ("accuracy", "overconfidence", "underconfidence", "loss")
RATES = (0.3, 0.45, 0.5, 0.6)
SPREADS = (0.0, 0.2, 0.5)  # standard deviation of the log odds


def expit(z: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-z))


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def normal_cdf(z: Array) -> Array:
    out = np.empty_like(z)
    for i in range(len(z)):
        out[i] = 0.5 * math.erfc(-z[i] / math.sqrt(2.0))
    return out


class Stream:
    """Confidences around a success rate, and outcomes that are independent or overlap.

    Overlapping outcomes are those of a random walk: a signal each `STEP` bars, all in one direction, succeeds if the
    walk gains more over the next `HORIZON` bars than its confidence says it will.
    """

    def __init__(self, rate: float, spread: float, seed: int, *, overlapping: bool = False) -> None:
        self.rate, self.spread, self.overlapping = rate, spread, overlapping
        self.rng = np.random.default_rng(seed)
        p = self.confidences(200_000)
        self.accuracy = float(np.maximum(p, 1.0 - p).mean())
        self.noise_accuracy = float(((p > 0.5).mean() * p.mean()) + (p <= 0.5).mean() * (1.0 - p.mean()))

    def confidences(self, n: int) -> Array:
        z = self.rng.standard_normal(n)
        return expit(math.log(self.rate / (1.0 - self.rate)) + self.spread * z)

    def outcomes(self, true_p: Array) -> tuple[Array, Array]:
        """Return outcomes and weights."""
        n = len(true_p)
        if not self.overlapping:
            return (self.rng.random(n) < true_p).astype(np.float64), np.ones(n)
        walk = np.concatenate(([0.0], np.cumsum(self.rng.standard_normal(n * STEP + HORIZON))))
        start = np.arange(n) * STEP
        gain = (walk[start + HORIZON] - walk[start]) / math.sqrt(HORIZON)
        return (normal_cdf(gain) < true_p).astype(np.float64), uniqueness_weights(
            start, start + HORIZON, len(walk)
        )

    def stationary(self, n: int) -> tuple[Array, Array, Array]:
        """Return confidences, outcomes and weights of a calibrated model."""
        p = self.confidences(n)
        return p, *self.outcomes(p)

    def dropped(self, n: int, before: int, drop: float, how: str) -> tuple[Array, Array, Array] | None:
        """Return a stream that gets worse by `drop` after `before` signals, None if it cannot by so much.

        `how` is ``"right"``: each prediction is right less often by that much; ``"rate"``: signals succeed less
        often by that much, which costs accuracy only where success was predicted; ``"noise"``: so many predictions
        belong to other signals that accuracy falls by that much.
        """
        p = self.confidences(n)
        true_p = p.copy()
        if how == "right":
            true_p[before:] += np.where(p[before:] > 0.5, -drop, drop)
        elif how == "rate":
            true_p[before:] -= drop
        else:
            share = drop / max(self.accuracy - self.noise_accuracy, 1e-9)
            if share > 1.0:
                return None
            mixed = before + np.flatnonzero(self.rng.random(n - before) < share)
            true_p[mixed] = self.confidences(len(mixed))
        return p, *self.outcomes(true_p)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def restated(
    p: Array, y: Array, w: Array, base: Array, sd: Array, reference: Array, threshold: Array, value: Array
) -> tuple[NDArray[np.int64], int]:
    """Return alarms by detector, all starting afresh after each, and the first row with one (-1: none)."""
    alarms = np.zeros(4, np.int64)
    first = -1
    for i in range(len(p)):
        right = (p[i] > 0.5) == (y[i] > 0.5)
        residual = (y[i] - p[i]) / max(sd[1], math.sqrt(p[i] * (1.0 - p[i])))
        loss = -math.log(p[i] if y[i] > 0.5 else 1.0 - p[i])
        x = (
            (base[0] - right) / sd[0],
            -residual,
            residual,
            min((loss - base[1]) / sd[2], 10.0),
        )
        for k in range(4):
            value[k] = max(0.0, value[k] + w[i] * (x[k] - reference[k]))
        for k in range(4):
            if value[k] > threshold[k]:
                alarms[k] += 1
                first = i if first < 0 else first
                value[:] = 0.0
                break
    return alarms, first


class Restatement:
    """The detectors of a monitor with this baseline, compiled."""

    def __init__(self, baseline: MonitorBaseline) -> None:
        detectors = monitor_of(baseline).detectors
        a = min(max(baseline.accuracy, 0.1), 0.9)
        self._base = np.array([baseline.accuracy, baseline.log_loss])
        self._sd = np.array(
            [math.sqrt(a * (1.0 - a)), max(baseline.residual_sd, 0.1), max(baseline.log_loss_sd, 0.1)]
        )
        self._reference = np.array([detectors[name].reference for name in DETECTORS])
        self._threshold = np.array([detectors[name].threshold for name in DETECTORS])
        self._value = np.zeros(4)

    def run(self, p: Array, y: Array, w: Array) -> tuple[NDArray[np.int64], int]:
        alarms, first = restated(p, y, w, self._base, self._sd, self._reference, self._threshold, self._value)
        return alarms, int(first)


def monitor_of(baseline: MonitorBaseline) -> RetrainMonitor:
    return RetrainMonitor(baseline, MonitorSettings(), bar_interval_ns=MINUTE_NS)


def known(stream: Stream) -> MonitorBaseline:
    """Return the baseline of a model whose true figures are known."""
    p = stream.confidences(1_000_000)
    both = np.concatenate([np.ones_like(p), np.zeros_like(p)])
    twice, weight = np.concatenate([p, p]), np.concatenate([p, 1.0 - p])
    losses = log_losses(both, twice)
    mean = float(np.average(losses, weights=weight))
    return MonitorBaseline(
        accuracy=float(np.maximum(p, 1.0 - p).mean()),
        log_loss=mean,
        log_loss_sd=math.sqrt(float(np.average((losses - mean) ** 2, weights=weight))),
        residual_sd=math.sqrt(float((p * (1.0 - p)).mean())),
    )


def per_year(alarms: int, years: float) -> str:
    """Return a rate with its 95 % interval for a Poisson count (Byar's approximation)."""
    z = 1.96
    low = alarms * (1.0 - 1.0 / (9.0 * alarms) - z / (3.0 * math.sqrt(alarms))) ** 3 if alarms else 0.0
    n = alarms + 1
    high = n * (1.0 - 1.0 / (9.0 * n) + z / (3.0 * math.sqrt(n))) ** 3
    return f"{alarms / years:5.2f} [{low / years:.2f}, {high / years:.2f}]"


def streams(*, overlapping: bool = False) -> Iterator[tuple[str, Stream]]:
    for i, rate in enumerate(RATES):
        for j, spread in enumerate(SPREADS):
            stream = Stream(rate, spread, 100 * i + j, overlapping=overlapping)
            yield f"{rate:4.2f}   {spread:4.2f}  {stream.accuracy:8.3f}", stream


def false_alarms(years: int, *, overlapping: bool) -> None:
    print(f"rate  spread  accuracy   {'  '.join(DETECTORS)}   all [95 %], per year")
    signals = YEAR // STEP if overlapping else YEAR
    everything = np.zeros(4, np.int64)
    n_streams = 0
    for name, stream in streams(overlapping=overlapping):
        restatement = Restatement(known(stream))
        alarms = np.zeros(4, np.int64)
        for _ in range(years):
            alarms += restatement.run(*stream.stationary(signals))[0]
        everything += alarms
        n_streams += 1
        each = "".join(f"{count / years:9.2f}" for count in alarms)
        print(f"{name}   {each}     {per_year(int(alarms.sum()), years)}")
    each = "".join(f"{count / years / n_streams:9.2f}" for count in everything)
    print(f"all                      {each}     {per_year(int(everything.sum()), years * n_streams)}")


def estimated_baselines(years: int) -> None:
    for overlapping, n_trained in ((False, 5_000), (False, 20_000), (True, 15_000)):
        signals = YEAR // STEP if overlapping else YEAR
        alarms, n = 0, 0
        for _, stream in streams(overlapping=overlapping):
            for _ in range(max(1, years // 2)):
                p, y, w = stream.stationary(n_trained)
                baseline = MonitorBaseline.measure(y, p, w, np.empty((len(y), 0)), ())
                alarms += int(Restatement(baseline).run(*stream.stationary(signals))[0].sum())
                n += 1
        kind = "overlapping" if overlapping else "independent"
        print(f"baseline from {n_trained:6,} {kind} labels: {per_year(alarms, n)}")


def power(runs: int, drops: tuple[float, ...], *, overlapping: bool) -> None:
    print(
        "drop  by     rate  spread  accuracy   found within the window   median delay, outcomes of weight 1"
    )
    per_outcome = HORIZON // STEP if overlapping else 1
    before, after = 1_000 * per_outcome, 3 * WINDOW * per_outcome
    for drop in drops:
        for how in ("right", "rate", "noise"):
            for name, stream in streams(overlapping=overlapping):
                baseline = known(stream)
                delays: list[float] = []
                while len(delays) < runs:
                    run = stream.dropped(before + after, before, drop, how)
                    if run is None:
                        break
                    p, y, w = run
                    restatement = Restatement(baseline)
                    restatement.run(p[:before], y[:before], w[:before])
                    first = restatement.run(p[before:], y[before:], w[before:])[1]
                    delays.append(math.inf if first < 0 else (first + 1) / per_outcome)
                if delays:
                    found = float(np.mean(np.array(delays) <= WINDOW))
                    print(f"{drop:4.2f}  {how:5}  {name}   {100 * found:21.1f} %   {np.median(delays):7.0f}")


def autoregressive(n: int, k: int, halflife: float, rng: np.random.Generator) -> Array:
    """Return k independent AR(1) columns of variance 1."""
    columns: Array = ar1(rng.standard_normal((n, k)), 0.5 ** (1.0 / halflife))
    return columns


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def ar1(shocks: Array, phi: float) -> Array:
    out = np.empty_like(shocks)
    out[0] = shocks[0]
    for i in range(1, len(out)):
        out[i] = phi * out[i - 1] + math.sqrt(1.0 - phi * phi) * shocks[i]
    return out


def features_baseline(X: Array) -> MonitorBaseline:
    names = [f"x{j}" for j in range(X.shape[1])]
    y = np.arange(len(X)) % 2
    return MonitorBaseline.measure(y, np.full(len(X), 0.5), None, X, names, WINDOW)


@numba.njit(cache=True)  # type: ignore[untyped-decorator]
def drifted(X: Array, edges: Array, shares: Array, limits: Array, window: int, each: int) -> tuple[int, int]:
    """Return feature alarms a cooldown of 1,440 rows apart, looked for `each` so many rows, and the first row."""
    counts = np.zeros(shares.shape)
    alarms, first, last = 0, -1, -1_440
    for i in range(len(X)):
        for j in range(X.shape[1]):
            counts[j, np.searchsorted(edges[j], X[i, j])] += 1.0
            if i >= window:
                counts[j, np.searchsorted(edges[j], X[i - window, j])] -= 1.0
        if i + 1 < window or i % each or i - last < 1_440:
            continue
        for j in range(X.shape[1]):
            observed = (counts[j] + 0.5) / (counts[j] + 0.5).sum()
            if ((observed - shares[j]) * np.log(observed / shares[j])).sum() > limits[j]:
                alarms += 1
                first = i if first < 0 else first
                last = i
                break
    return alarms, first


def run_features(baseline: MonitorBaseline, X: Array, each: int = 20) -> tuple[int, int]:
    limits = np.maximum(baseline.psi_limits, MonitorSettings().feature_drift)
    alarms, first = drifted(
        X, np.array(baseline.edges), np.array(baseline.shares), limits, baseline.window, each
    )
    return int(alarms), int(first)


def feature_drift(years: int) -> None:
    k, n_shifted = len(META_FEATURE_NAMES), 50
    print(
        f"{k} features, a row each bar; found: a shift of one of them by d standard deviations, within 1,000 rows\n"
        "halflife  trained on  window  median limit   alarms per year [95 %]      d=1     d=2     d=4"
    )
    for halflife in (1, 5, 20, 60, 300, 1_000):
        for n_trained in (2_000, 5_000, 10_000, 40_000):
            rng = np.random.default_rng(halflife + n_trained)
            alarms = 0
            limits = []
            for _ in range(years):
                baseline = features_baseline(autoregressive(n_trained, k, halflife, rng))
                limits.append(np.median(np.maximum(baseline.psi_limits, MonitorSettings().feature_drift)))
                alarms += run_features(baseline, autoregressive(YEAR, k, halflife, rng))[0]
            found = []
            for d in (1.0, 2.0, 4.0):
                hits = 0
                for _ in range(n_shifted):
                    rows = autoregressive(n_trained + 2 * WINDOW, k, halflife, rng)
                    rows[n_trained + WINDOW :, 0] += d
                    first = run_features(features_baseline(rows[:n_trained]), rows[n_trained:], 1)[1]
                    hits += first >= WINDOW
                found.append(f"{100 * hits / n_shifted:5.0f} %")
            print(
                f"{halflife:8}  {n_trained:10,}  {baseline.window:6}  {np.median(limits):12.2f}   "
                f"{per_year(alarms, years):22}  {' '.join(found)}"
            )


def end_to_end(runs: int) -> None:
    """Drive `RetrainMonitor` itself: a year without a change, then drops of ten points."""
    rng = np.random.default_rng(0)
    stream = Stream(0.5, 0.6, 7)
    k = len(META_FEATURE_NAMES)
    p, y, _ = stream.stationary(40_000)
    rows = autoregressive(40_000, k, 5.0, rng)
    baseline = MonitorBaseline.measure(y, p, None, rows, META_FEATURE_NAMES, WINDOW)
    monitor = monitor_of(baseline)
    p, y, _ = stream.stationary(YEAR)
    found = []
    for i, row in enumerate(autoregressive(YEAR, k, 5.0, rng)):
        monitor.record_outcome(p[i], int(y[i]))
        monitor.record_features(row)
        trigger = monitor.check_retrain_trigger(i * MINUTE_NS)
        if trigger is not None:
            found.append(trigger)
            monitor.retrained(i * MINUTE_NS)
    print(f"a year without a change: {len(found)} triggers {[t.reason for t in found]}")
    for how in ("right", "rate", "noise"):
        kinds: list[str] = []
        for _ in range(runs):
            run = stream.dropped(3 * WINDOW, 2 * WINDOW, 0.10, how)
            assert run is not None
            monitor = monitor_of(known_once(stream))
            trigger = None
            for i, (p_i, y_i, w_i) in enumerate(zip(*run, strict=True)):
                monitor.record_outcome(p_i, int(y_i), w_i)
                if i >= 2 * WINDOW and (trigger := monitor.check_retrain_trigger()) is not None:
                    break
            kinds.append("missed" if trigger is None else trigger.kind)
        counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        print(f"a drop of ten points by {how}: {counts} of {runs}")


_KNOWN: dict[int, MonitorBaseline] = {}


def known_once(stream: Stream) -> MonitorBaseline:
    return _KNOWN.setdefault(id(stream), known(stream))


def recorded(primary: str = "trend") -> None:
    """Train on the first part of each market, and stream the rest."""
    from backtests.market import load_markets
    from backtests.primaries import PRIMARIES, batch_signals
    from backtests.training import TRAIN_SHARE
    from ml4t_actor.labeling.dataset import build_dataset
    from ml4t_actor.labeling.odds import with_odds
    from ml4t_actor.training.loop import TrainingLoop

    settings = TrainingSettings(labels=LabelSettings(cost=0.0))
    for universe in ("binance_1m", "hyperliquid_5m"):
        for market in load_markets(universe):
            signals = batch_signals(PRIMARIES[primary](), market.bars)
            split = int(TRAIN_SHARE * len(market.bars))
            split_ns = int(market.bars.ts_event[split])
            early = signals.ts_event < split_ns
            loop = TrainingLoop(settings, feature_names=META_FEATURE_NAMES)
            result = loop.train(
                market.bars[:split],
                Signals(signals.ts_event[early], signals.signal[early], signals.strength[early]),
            )
            baseline = MonitorBaseline.from_metrics(result.bundle.metrics)
            assert baseline is not None
            later = build_dataset(market.bars, signals, settings=settings, feature_names=META_FEATURE_NAMES)
            rows = np.flatnonzero(later.label_start >= split_ns)
            part = with_odds(later[rows], settings.labels, result.bundle.exit_times)
            p = result.bundle.model.predict_rows(part.X, part.odds, part.volatility)
            interval_ns = later.interval_ns
            monitor = RetrainMonitor(baseline, MonitorSettings(), bar_interval_ns=interval_ns)
            found = []
            for row, p_i in zip(rows, p, strict=True):
                monitor.record_features(later.X[row])
                monitor.record_outcome(p_i, int(later.y[row]), float(later.weight[row]))
                now_ns = int(later.label_end[row])
                if (trigger := monitor.check_retrain_trigger(now_ns)) is not None:
                    found.append(trigger)
                    monitor.retrained(now_ns)
            days = (int(later.label_end[-1]) - split_ns) / 86_400e9
            title = market.name + (" SYNTHETIC" if market.synthetic else "")
            print(
                f"{title:28} {len(rows):6,} outcomes of weight {monitor.outcome_weight:6.0f} in {days:3.0f} days; "
                f"accuracy {baseline.accuracy:.3f} out of fold, {monitor.accuracy:.3f} lately; {len(found)} triggers"
            )
            for trigger in found[:3]:
                print(f"    day {(trigger.ts - split_ns) / 86_400e9:5.1f}  {trigger.kind}: {trigger.reason}")


def main(years: int = 10, runs: int = 200) -> None:
    print("false alarms, independent outcomes of weight 1, one each minute")
    false_alarms(years, overlapping=False)
    print(f"\nfalse alarms, a signal each {STEP} bars, labels over {HORIZON}, uniqueness weights")
    false_alarms(years, overlapping=True)
    print("\nfalse alarms per year [95 %] when the baseline is itself an estimate, all streams together")
    estimated_baselines(years)
    print(f"\na drop of accuracy, independent outcomes, {runs} runs each")
    power(runs, (0.05, 0.10, 0.15), overlapping=False)
    print("\nthe same with overlapping labels")
    power(runs // 4, (0.10,), overlapping=True)
    print("\nthe monitor itself")
    end_to_end(min(runs, 100))
    print("\nfeatures")
    feature_drift(max(1, years // 5))
    print("\nrecorded markets")
    recorded()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="False alarms and delays of the retrain monitor.")
    parser.add_argument("--years", type=int, default=10)
    parser.add_argument("--runs", type=int, default=200)
    arguments = parser.parse_args()
    main(arguments.years, arguments.runs)
