"""What an enriched signal says beyond its signal, from the state of the instrument and the model that is active."""

from dataclasses import dataclass

from ml4t_actor.indicators.features import FeatureEngine
from ml4t_actor.indicators.regime import rule_regime, rule_weight
from ml4t_actor.inference.instrument_state import ActiveModel
from ml4t_actor.kernels.features import row_fault
from ml4t_actor.market_data import FloatArray
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.registry import ModelBundle


@dataclass(slots=True)
class Enrichment:
    """The fields of an `EnrichedSignal` that the signal has not; what is left out fails closed."""

    status: Status
    meta_confidence: float
    toxicity: float = 1.0
    vpin: float = 1.0
    regime_weight: float = 0.0
    regime: int = -1
    volatility: float = 0.0
    model_version: str = ""

    def of(self, signal: SignalData, latency_ns: int, now_ns: int) -> EnrichedSignal:
        """Return the signal enriched."""
        return EnrichedSignal.from_signal(
            signal,
            meta_confidence=self.meta_confidence,
            status=self.status,
            toxicity=self.toxicity,
            vpin=self.vpin,
            regime_weight=self.regime_weight,
            regime=self.regime,
            volatility=self.volatility,
            model_version=self.model_version,
            latency_ns=latency_ns,
            ts_init=now_ns,
        )


def market_context(
    instrument_id: InstrumentId,
    features: FeatureEngine,
    vpin: float,
    active: ActiveModel,
    default_confidence: float,
    sqrt_horizon: float,
) -> tuple[Enrichment, float]:
    """Return what is known whether or not the model can be asked, and the weight of the regime, for where it can.

    Without fitted regimes a rule stands in for them.
    """
    bundle = active.bundle
    probabilities = active.regimes.get(instrument_id)
    if bundle is not None and bundle.regime is not None and probabilities is not None:
        regime = bundle.regime.regime(probabilities)
        regime_weight = bundle.regime.weight(probabilities)
    else:
        percentile, strength = features.volatility_percentile, features.trend_strength
        regime = rule_regime(percentile, strength) if features.initialized else -1
        regime_weight = rule_weight(percentile, strength)
    volatility = features.volatility
    enrichment = Enrichment(
        Status.OK,
        default_confidence,
        1.0,
        vpin if vpin == vpin else 1.0,
        0.0,
        regime,
        volatility * sqrt_horizon if volatility == volatility else 0.0,
        "" if bundle is None else bundle.version,
    )
    return enrichment, regime_weight


def predict(
    bundle: ModelBundle,
    active: ActiveModel,
    features: FeatureEngine,
    row: FloatArray,
    side: int,
    default_confidence: float,
) -> tuple[Status, float]:
    """Return the model's confidence in a row of all built-in features, or why it cannot be asked for one."""
    x = features.select(row, bundle.feature_names, side) if active.columns is None else row[active.columns]
    if fault := row_fault(x, bundle.feature_low, bundle.feature_high):
        return Status.BAD_FEATURES if fault == 1 else Status.NOVEL_INPUT, default_confidence
    return Status.OK, bundle.model.predict(x)
