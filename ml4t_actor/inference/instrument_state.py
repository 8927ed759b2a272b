"""What is known of each instrument, and the model that is active there."""

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml4t_actor.indicators.features import FeatureEngine
from ml4t_actor.indicators.regime import RegimeModel
from ml4t_actor.indicators.vpin import VPIN
from ml4t_actor.kernels.features import BUILTIN_NAMES
from ml4t_actor.labeling.odds import TradeOdds
from ml4t_actor.market_data import FloatArray
from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.registry import ModelBundle
from ml4t_actor.settings import LabelSettings

REGIME_HISTORY_BARS = 256

_COLUMN = {name: i for i, name in enumerate(BUILTIN_NAMES)}
_LAYOUT = 1  # of a saved state
_ENCODER = msgspec.msgpack.Encoder()


class ModelInputs(NamedTuple):
    """What an answer was made from.

    Attributes
    ----------
    features : float64 (n,)
        Every built-in feature, then the custom ones (`FeatureEngine.served_names`).
    regime_probabilities : float64 (n_regimes,) or None
        Of the active bundle's regimes.
    regime_model : str
        Digest of these regimes; "" if there are none.
    """

    features: FloatArray
    regime_probabilities: FloatArray | None
    regime_model: str


class Answer(NamedTuple):
    """An enriched signal, and what it was made from.

    Attributes
    ----------
    enriched : EnrichedSignal
        What is published.
    inputs : ModelInputs or None
        None before the instrument's first bar.
    """

    enriched: EnrichedSignal
    inputs: ModelInputs | None


class _State(msgspec.Struct, array_like=True):
    layout: int
    version: str
    interval_ns: int
    halflife_bars: int
    features: bytes
    flow: bytes
    vpin: bytes
    regime_history: bytes
    regimes: bytes | None


class ActiveModel:
    """The bundle that serves, and all that is derived from it: swapped as one reference."""

    __slots__ = ("bundle", "columns", "regime_model", "regimes", "trade_odds")

    def __init__(
        self,
        bundle: ModelBundle | None,
        states: "Mapping[InstrumentId, InstrumentState]",
        labels: LabelSettings,
    ) -> None:
        self.bundle = bundle
        self.trade_odds = TradeOdds(labels) if bundle is None else bundle.trade_odds()
        self.columns: NDArray[np.int64] | None = None
        self.regime_model = "" if bundle is None or bundle.regime is None else bundle.regime.digest
        self.regimes: dict[InstrumentId, FloatArray] = {}
        if bundle is None:
            return
        if all(name in _COLUMN for name in bundle.feature_names):
            self.columns = np.array([_COLUMN[name] for name in bundle.feature_names])
        if bundle.regime is not None:
            for instrument_id, state in states.items():
                self.regimes[instrument_id] = state.filtered(bundle.regime)


class InstrumentState:
    """What is known of one instrument."""

    __slots__ = ("alive_ns", "features", "has_trades", "regime_history", "silent_bars", "vpin")

    def __init__(self, features: FeatureEngine, vpin: VPIN, has_trades: bool) -> None:
        self.features = features
        self.vpin = vpin
        self.has_trades = has_trades
        self.alive_ns = 0  # close of the last bar that came from the venue
        self.silent_bars = 0  # with volume, since the last trade
        # The latest regime inputs, oldest first once full, so that a new bundle's regimes start warm.
        self.regime_history = np.full((REGIME_HISTORY_BARS, 2), np.nan)

    def filtered(self, model: RegimeModel) -> FloatArray:
        """Return the probability of each of the model's regimes now, as far as the history tells."""
        seen = min(self.features.bars, REGIME_HISTORY_BARS)
        if not seen:
            return model.initial_state()
        probabilities: FloatArray = model.filter(self.regime_history[-seen:])[-1].copy()
        return probabilities

    def state(self, active: ActiveModel, instrument_id: InstrumentId) -> bytes | None:
        """Return all of it as bytes; see `InferenceLoop.state`."""
        if self.features.has_custom:
            return None
        features, flow = self.features.state
        regimes = active.regimes.get(instrument_id)
        return _ENCODER.encode(
            _State(
                _LAYOUT,
                "" if active.bundle is None else active.bundle.version,
                self.features.interval_ns,
                self.features.halflife_bars,
                features.tobytes(),
                flow.tobytes(),
                self.vpin.state.tobytes(),
                self.regime_history.tobytes(),
                None if regimes is None else regimes.tobytes(),
            )
        )

    def restore(
        self, state: bytes, active: ActiveModel, instrument_id: InstrumentId, warm_only: bool
    ) -> None:
        """Take all of it from bytes; see `InferenceLoop.restore`."""
        try:
            saved = msgspec.msgpack.decode(state, type=_State)
            expected = (_LAYOUT, self.features.interval_ns, self.features.halflife_bars)
            if (found := (saved.layout, saved.interval_ns, saved.halflife_bars)) != expected:
                raise ValueError(f"it is of layout, bar length and half-life {found}, not {expected}")
            if self.features.has_custom:
                raise ValueError("custom features keep no state")
            history = np.frombuffer(saved.regime_history).reshape(self.regime_history.shape).copy()
            vpin = VPIN(self.vpin.settings)
            vpin.restore(np.frombuffer(saved.vpin))
            self.features.restore((np.frombuffer(saved.features), np.frombuffer(saved.flow)))
            if warm_only and not self.features.initialized:
                self.features.reset()
                raise ValueError("it is not warm, and past bars will be")
        except (msgspec.MsgspecError, ValueError) as e:
            raise ValueError(f"the saved state of {instrument_id} is refused: {e}; it starts cold") from None
        self.vpin = vpin
        self.alive_ns = self.features.last_ts
        self.regime_history = history
        bundle = active.bundle
        if bundle is not None and bundle.regime is not None:
            same = saved.regimes is not None and saved.version == bundle.version
            active.regimes[instrument_id] = (
                np.frombuffer(saved.regimes or b"").copy() if same else self.filtered(bundle.regime)
            )


def identifier(instrument_id: InstrumentId | str) -> InstrumentId:
    """Return an instrument identifier, given as one or as its string."""
    return InstrumentId.from_str(instrument_id) if isinstance(instrument_id, str) else instrument_id


def check_interval(bundle: ModelBundle, instrument_id: InstrumentId, interval_ns: int) -> None:
    """Raise `ValueError` unless the bundle was trained on bars of this length."""
    if interval_ns != bundle.bar_interval_ns:
        raise ValueError(
            f"the bundle was trained on bars of {bundle.bar_interval_ns / 1e9:g} s, but {instrument_id} has bars of "
            f"{interval_ns / 1e9:g} s; train on the same bars"
        )
