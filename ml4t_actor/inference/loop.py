"""The inference loop: bars and trades in, and for each signal an answer."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from ml4t_actor.indicators.features import (
    DEFAULT_FEATURE_NAMES,
    FeatureEngine,
    FeatureFactory,
    check_feature_names,
)
from ml4t_actor.indicators.regime import rule_regime
from ml4t_actor.indicators.vpin import VPIN
from ml4t_actor.inference.enrichment import Enrichment, market_context, predict
from ml4t_actor.inference.instrument_state import (
    ActiveModel,
    Answer,
    InstrumentState,
    ModelInputs,
    check_interval,
    identifier,
)
from ml4t_actor.kernels.features import BUILTIN_NAMES, row_fault
from ml4t_actor.market_data import MINUTE_NS, SECOND_NS, Bars
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.registry import ModelBundle, ModelStore
from ml4t_actor.registry.manifest import MANIFEST_FILE
from ml4t_actor.settings import MAX_BAR_AGE_BARS, LabelSettings, VPINSettings

_SCRATCH = InstrumentId.from_str("SCRATCH.SCRATCH")
_NOT_OF_NOW = (Status.FUTURE_SIGNAL, Status.EXPIRED)
_DEFAULT_LABELS = LabelSettings()
_DEFAULT_VPIN = VPINSettings()


class InferenceLoop:
    """Gives each signal a meta-confidence, a toxicity and a regime weight, in microseconds.

    Works with an engine (the actor feeds it) and without one (`process_signal` with `bars`). Not thread-safe: all
    calls belong on one thread.

    The model's answer starts from the odds of a random walk between the barriers of `labels`, which the instrument's
    volatility decides, where it was trained so. Where these are 0, the costs exceed what the trade can make:
    confidence, base odds and interval are then 0, with status `ok`.

    Fails closed: whenever a value cannot be vouched for, the enriched signal carries the default confidence, from 0 to
    1, toxicity 1.0 and regime weight 0.0, and its `status` says why. In order of precedence:

    ===================== ===============================================================
    `unknown_instrument`  the instrument was not configured
    `future_signal`       the signal's time is after the clock's, beyond the allowed skew
    `expired`             the signal arose too long before the clock's time
    `no_model`            no bundle is loaded
    `stale_data`          the last bar closed too long before the clock's time
    `warming_up`          features or VPIN have not seen enough yet
    `stale_data`          bars have volume, but the trades that they are made of do not come
    `bad_features`        a feature is not finite, or the volatility is 0 where the model starts from the odds
    `novel_input`         a feature is outside the range seen in training
    `error`               an unexpected failure, counted and kept in `last_error`
    ===================== ===============================================================

    Parameters
    ----------
    bundle : ModelBundle, optional
        What serves; see `swap`.
    model_path : str or Path, default "models"
        Where `load_model` looks.
    default_confidence : float, default 0.5
        Confidence given when there is no answer.
    feature_names : sequence of str, optional
        Names to check; the bundle says which of them its model reads.
    custom_features : mapping of str to type, optional
        Users' own features, by name.
    labels, vpin, volatility_halflife_bars
        As in training; a bundle trained with others is refused.
    max_bar_age_bars : float, default 3.0
        Oldest last bar, in bar lengths, that still counts as live.
    max_clock_skew_ns : int, default 1 s
        How far ahead of the clock a signal may be.
    max_signal_age_ns : int, default 60 s
        How long before the clock's time a signal may have arisen.
    timeout_ns : int, default 10 ms
        An enrichment that takes longer is counted in `n_slow`.
    flag_late : bool, default False
        Whether such an enrichment also has the status `late` (its values stand). Off in a backtest, whose results must
        not depend on the machine's speed.
    """

    def __init__(
        self,
        bundle: ModelBundle | None = None,
        *,
        model_path: str | Path = "models",
        default_confidence: float = 0.5,
        feature_names: Sequence[str] = DEFAULT_FEATURE_NAMES,
        custom_features: Mapping[str, FeatureFactory] | None = None,
        labels: LabelSettings = _DEFAULT_LABELS,
        vpin: VPINSettings = _DEFAULT_VPIN,
        volatility_halflife_bars: int = 60,
        max_bar_age_bars: float = MAX_BAR_AGE_BARS,
        max_clock_skew_ns: int = SECOND_NS,
        max_signal_age_ns: int = MINUTE_NS,
        timeout_ns: int = 10_000_000,
        flag_late: bool = False,
    ) -> None:
        if not 0.0 <= default_confidence <= 1.0:
            raise ValueError(f"`default_confidence` was {default_confidence}, must be in [0, 1]")
        self.model_path = Path(model_path)
        self.default_confidence = default_confidence
        self.custom_features = dict(custom_features or {})
        self.feature_names = check_feature_names(feature_names, self.custom_features)
        self.labels = labels
        self.vpin_settings = vpin
        self.volatility_halflife_bars = volatility_halflife_bars
        self.max_bar_age_bars = max_bar_age_bars
        self.max_clock_skew_ns = max_clock_skew_ns
        self.max_signal_age_ns = max_signal_age_ns
        self.timeout_ns = timeout_ns
        self.flag_late = flag_late
        self.counts: Counter[str] = Counter()  # of answers, by status
        self.n_slow = 0
        self.n_swaps = 0
        self.last_error: BaseException | None = None
        self._states: dict[InstrumentId, InstrumentState] = {}
        self._active = ActiveModel(None, self._states, labels)
        if bundle is not None:
            self.swap(bundle)

    @property
    def bundle(self) -> ModelBundle | None:
        """The bundle that serves."""
        return self._active.bundle

    @property
    def instruments(self) -> tuple[InstrumentId, ...]:
        """The instruments that are followed."""
        return tuple(self._states)

    def check(self, bundle: ModelBundle) -> None:
        """Raise `ValueError` with the reason if `bundle` cannot serve here."""
        known = (*BUILTIN_NAMES, *self.custom_features)
        if unknown := [name for name in bundle.feature_names if name not in known]:
            raise ValueError(
                f"the bundle reads feature(s) {unknown} that are not registered here; "
                "add them to `custom_features`, or train without them"
            )
        for name, theirs, ours in (
            ("labels", bundle.settings.labels, self.labels),
            ("vpin", bundle.settings.vpin, self.vpin_settings),
            (
                "volatility_halflife_bars",
                bundle.settings.volatility_halflife_bars,
                self.volatility_halflife_bars,
            ),
        ):
            if theirs != ours:
                raise ValueError(
                    f"the bundle was trained with `{name}` {theirs}, but {ours} is configured; make them the same"
                )
        for instrument_id, state in self._states.items():
            check_interval(bundle, instrument_id, state.features.interval_ns)

    def swap(self, bundle: ModelBundle) -> None:
        """Let `bundle` serve from the next signal on.

        Raises
        ------
        ValueError
            If it cannot serve here, with the reason; the present one then stays.
        """
        self.check(bundle)
        self._serve(bundle)

    def load_model(
        self,
        path: str | Path | None = None,
        *,
        refused: Callable[[str, str], None] = lambda _version, _reason: None,
    ) -> bool:
        """Let the newest bundle of a folder serve that is whole and fits here; none is a normal state.

        Parameters
        ----------
        path : str or Path, optional
            Folder of a `ModelStore`, or of one version in it; by default `model_path`.
        refused : callable, optional
            Given the version of each newer bundle that cannot serve, and the reason.

        Returns
        -------
        bool
            Whether one of them serves now. Where none does, the bundle of before goes on.
        """
        folder = self.model_path if path is None else Path(path)
        if (folder / MANIFEST_FILE).is_file():
            try:
                self.swap(ModelStore(folder.parent).load(folder.name))
            except ValueError as e:  # a BundleError too
                refused(folder.name, str(e))
                return False
            return True
        store = ModelStore(folder)
        bundle = store.load_latest(self.swap)
        for version, reason in store.refusals.items():
            refused(version, reason)
        return bundle is not None

    def retire(self) -> None:
        """Let no bundle serve: signals get the default confidence and status `no_model` until the next `swap`."""
        self._serve(None)

    def add_instrument(
        self, instrument_id: InstrumentId | str, bar_interval_ns: int, *, trades: bool = False
    ) -> None:
        """Follow an instrument with bars of `bar_interval_ns`; with `trades`, VPIN and taker flow come from trades.

        Raises
        ------
        ValueError
            If it is followed already, or the bundle was trained on bars of another length.
        """
        instrument_id = identifier(instrument_id)
        if instrument_id in self._states:
            raise ValueError(f"{instrument_id} is followed already; one bar type per instrument")
        bundle = self._active.bundle
        if bundle is not None:
            check_interval(bundle, instrument_id, bar_interval_ns)
        state = InstrumentState(
            FeatureEngine(
                self.feature_names,
                interval_ns=bar_interval_ns,
                halflife_bars=self.volatility_halflife_bars,
                custom=self.custom_features,
            ),
            VPIN(self.vpin_settings),
            has_trades=trades,
        )
        self._states[instrument_id] = state
        if bundle is not None and bundle.regime is not None:
            self._active.regimes[instrument_id] = bundle.regime.initial_state()

    def compile(self) -> None:
        """Run every kernel once, on an instrument of its own, so that no live signal waits for the compiler."""
        scratch = InferenceLoop(labels=self.labels, vpin=self.vpin_settings)
        scratch.add_instrument(_SCRATCH, 60_000_000_000)
        for minute in range(1, 4):
            scratch.update_bar(_SCRATCH, minute * 60_000_000_000, 1.0, 1.0, 1.0, 1.0, 1.0)
        scratch.update_trade(_SCRATCH, 181_000_000_000, 1.0, 1.0, 1)
        scratch.answer(SignalData(instrument_id=_SCRATCH, signal=1, strength=1.0, source="-", signal_id="-"))
        scratch.state(_SCRATCH)
        features = scratch.features(_SCRATCH)
        rule_regime(features.volatility_percentile, features.trend_strength)
        row = features.full_row(1, 1.0, 0.5, 0.5)
        row_fault(row, row, row)
        bundle = self._active.bundle
        if bundle is not None:
            x = np.zeros(len(bundle.feature_names))
            row_fault(x, bundle.feature_low, bundle.feature_high)
            bundle.model.answer(x, 0.5, 1.0)
            if bundle.regime is not None:
                scratch._states[_SCRATCH].filtered(bundle.regime)
                bundle.regime.regime_and_weight(
                    bundle.regime.step(bundle.regime.initial_state(), features.regime_inputs())
                )

    def features(self, instrument_id: InstrumentId | str) -> FeatureEngine:
        """Return the feature engine of an instrument, to look at."""
        return self._states[identifier(instrument_id)].features

    def vpin(self, instrument_id: InstrumentId | str) -> VPIN:
        """Return the VPIN indicator of an instrument, to look at."""
        return self._states[identifier(instrument_id)].vpin

    def state(self, instrument_id: InstrumentId) -> bytes | None:
        """Return all that is known of an instrument, for `restore`; None with custom features.

        Those alone know their state, and a warm instrument with cold features would be an optimistic one.
        """
        return self._states[instrument_id].state(self._active, instrument_id)

    def restore(self, instrument_id: InstrumentId, state: bytes, *, warm_only: bool = False) -> None:
        """Continue, to the last bit, where the `state` of an instrument was taken.

        With `warm_only` a state of features that are not warm yet is refused: for who can feed the past from its
        beginning, which would come before what such a state has seen.

        Raises
        ------
        ValueError
            If it was taken with other settings, or is no state; the instrument then starts cold.
        """
        self._states[instrument_id].restore(state, self._active, instrument_id, warm_only)

    def update_bar(
        self,
        instrument_id: InstrumentId | str,
        ts_event: int,
        open: float,
        high: float,
        low: float,
        close: float,
        volume: float,
        buy_volume: float = float("nan"),
        *,
        historical: bool = False,
        alive: bool = True,
    ) -> bool:
        """Take one closed bar (see `FeatureEngine.update_bar`); return whether it was accepted.

        Parameters
        ----------
        historical : bool, default False
            The bar was requested afterwards and its trades will not come: it feeds VPIN in their place.
        alive : bool, default True
            The bar shows that the feed is alive. One that was made up where nothing came does not.
        """
        instrument_id = identifier(instrument_id)
        state = self._states[instrument_id]
        if not state.features.update_bar(ts_event, open, high, low, close, volume, buy_volume):
            return False
        if not state.has_trades or historical:
            state.vpin.update_bar_raw(ts_event, close, volume, buy_volume)
        elif volume > 0.0:
            state.silent_bars += 1
        if alive:
            state.alive_ns = ts_event
        inputs = state.features.regime_inputs()
        history = state.regime_history
        history[:-1] = history[1:]
        history[-1] = inputs
        active = self._active
        if active.bundle is not None and active.bundle.regime is not None:
            regimes = active.regimes
            regimes[instrument_id] = active.bundle.regime.step(regimes[instrument_id], inputs)
        return True

    def update_trade(
        self, instrument_id: InstrumentId | str, ts_event: int, price: float, size: float, side: int
    ) -> None:
        """Take one trade (`side`: 1 buyer, -1 seller, 0 not known)."""
        state = self._states[identifier(instrument_id)]
        state.silent_bars = 0
        state.features.update_trade(ts_event, size, side)
        state.vpin.update_raw(ts_event, price, size, side)

    def process_signal(
        self, signal: SignalData, bars: object = None, *, now_ns: int | None = None
    ) -> EnrichedSignal:
        """Enrich one signal.

        Parameters
        ----------
        signal : SignalData
            The signal.
        bars : see `Bars.coerce`, optional
            Without an engine: the instrument's history up to now. Bars already seen, and those that closed after the
            signal, are passed over; an instrument not yet followed is added with their bar length.
        now_ns : int, optional
            The clock's time, UNIX nanoseconds; the signal's own by default.

        Returns
        -------
        EnrichedSignal
            Always: a failure inside is counted and answered with the status `error`.
        """
        started = perf_counter_ns()
        now = signal.ts_event if now_ns is None else now_ns
        try:
            if bars is not None:
                self._feed(signal, bars)
            enrichment = self._evaluate(signal, now)
        except Exception as e:  # nothing may escape into Nautilus: in a live node it would end the process
            self.last_error = e
            enrichment = Enrichment(Status.ERROR, self.default_confidence)
        latency_ns = perf_counter_ns() - started
        if latency_ns > self.timeout_ns:
            self.n_slow += 1
            if self.flag_late and enrichment.status is Status.OK:
                enrichment.status = Status.LATE
        self.counts[enrichment.status] += 1
        return enrichment.of(signal, latency_ns, now)

    def answer(self, signal: SignalData, *, now_ns: int | None = None) -> Answer:
        """Enrich one signal, and return with it what the model was shown, for who records both.

        Parameters
        ----------
        signal, now_ns
            See `process_signal`.
        """
        enriched = self.process_signal(signal, now_ns=now_ns)
        state = self._states.get(signal.instrument_id)
        if state is None or not state.features.bars:
            return Answer(enriched, None)
        active = self._active
        return Answer(
            enriched,
            ModelInputs(
                state.features.served_row(signal.signal),
                active.regimes.get(signal.instrument_id),
                active.regime_model,
            ),
        )

    def _serve(self, bundle: ModelBundle | None) -> None:
        self._active = ActiveModel(bundle, self._states, self.labels)
        self.n_swaps += 1

    def _evaluate(self, signal: SignalData, now: int) -> Enrichment:
        state = self._states.get(signal.instrument_id)
        if state is None:
            return Enrichment(Status.UNKNOWN_INSTRUMENT, self.default_confidence)
        features, active = state.features, self._active
        vpin, toxicity = state.vpin.value, state.vpin.toxicity
        enrichment, regime_weight = market_context(
            signal.instrument_id, features, vpin, active, self.default_confidence
        )
        row = None
        if features.bars:
            row = features.full_row(signal.signal, signal.strength, vpin, toxicity)
        status = self._status_before_the_model(signal, now, state, row is None)
        if status is Status.OK and row is not None and active.bundle is not None:
            # There is nothing to win by being flat: a zero signal closes, and its confidence stays the default.
            if signal.signal:
                status = predict(active.bundle, active, features, row, signal.signal, enrichment)
            if status is Status.OK:
                enrichment.toxicity = toxicity
                enrichment.regime_weight = regime_weight
        if status not in _NOT_OF_NOW:
            features.record_signal(signal.signal)
        enrichment.status = status
        return enrichment

    def _status_before_the_model(
        self, signal: SignalData, now: int, state: InstrumentState, no_bars: bool
    ) -> Status:
        """Return why the model is not asked, the first reason of the table above; OK if there is none."""
        if signal.ts_event > now + self.max_clock_skew_ns:
            return Status.FUTURE_SIGNAL
        if now - signal.ts_event > self.max_signal_age_ns:
            return Status.EXPIRED
        if self._active.bundle is None:
            return Status.NO_MODEL
        if no_bars:
            return Status.WARMING_UP
        if now - state.alive_ns > self.max_bar_age_bars * state.features.interval_ns:
            return Status.STALE_DATA
        if not (state.features.initialized and state.vpin.initialized):
            return Status.WARMING_UP
        if state.silent_bars > self.max_bar_age_bars:
            return Status.STALE_DATA
        return Status.OK

    def unseen(self, instrument_id: InstrumentId, bars: Bars, until_ns: int) -> Bars:
        """Return those of an instrument's bars that come after the last one handled and closed by `until_ns`."""
        last_ts = self._states[instrument_id].features.last_ts
        first, end = np.searchsorted(bars.ts_event, [last_ts, until_ns], side="right")
        return bars[slice(int(first), int(end))]

    def _feed(self, signal: SignalData, bars: object) -> None:
        columns = Bars.coerce(bars)
        instrument_id = signal.instrument_id
        if instrument_id not in self._states:
            self.add_instrument(instrument_id, columns.interval_ns())
        for bar in self.unseen(instrument_id, columns, signal.ts_event).tuples():
            self.update_bar(instrument_id, *bar)
