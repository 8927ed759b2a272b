"""What an enriched signal says beyond its signal, from the state of the instrument and the model that is active."""

import math
import sys
from dataclasses import dataclass

from ml4t_actor.indicators.features import FeatureEngine
from ml4t_actor.indicators.regime import rule_regime, rule_weight
from ml4t_actor.inference.instrument_state import ActiveModel
from ml4t_actor.kernels.features import row_fault
from ml4t_actor.market_data import FloatArray
from ml4t_actor.messages import EnrichedSignal, SignalData, Status
from ml4t_actor.nautilus.model import InstrumentId
from ml4t_actor.registry import ModelBundle

_LARGEST = sys.float_info.max


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
    base_odds: float = 0.0
    confidence_low: float = 0.0
    confidence_high: float = 1.0
    expected_return: float = math.nan
    break_even: float = 1.0

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
            base_odds=self.base_odds,
            confidence_low=self.confidence_low,
            confidence_high=self.confidence_high,
            expected_return=self.expected_return,
            break_even=self.break_even,
            ts_init=now_ns,
        )


def market_context(
    instrument_id: InstrumentId,
    features: FeatureEngine,
    vpin: float,
    active: ActiveModel,
    default_confidence: float,
) -> tuple[Enrichment, float]:
    """Return what is known whether or not the model can be asked, and the weight of the regime, for where it can.

    Without fitted regimes a rule stands in for them.
    """
    bundle = active.bundle
    probabilities = active.regimes.get(instrument_id)
    if bundle is not None and bundle.regime is not None and probabilities is not None:
        regime, regime_weight = bundle.regime.regime_and_weight(probabilities)
    else:
        percentile, strength = features.volatility_percentile, features.trend_strength
        regime = rule_regime(percentile, strength) if features.initialized else -1
        regime_weight = rule_weight(percentile, strength)
    volatility = active.trade_odds.scaled(features.volatility)
    odds, break_even = active.trade_odds.of(volatility)
    enrichment = Enrichment(
        Status.OK,
        default_confidence,
        1.0,
        vpin if vpin == vpin else 1.0,
        0.0,
        regime,
        volatility if volatility == volatility else 0.0,
        "" if bundle is None else bundle.version,
        odds if odds == odds else 0.0,
        break_even=break_even if break_even == break_even else 1.0,
    )
    return enrichment, regime_weight


def predict(
    bundle: ModelBundle,
    active: ActiveModel,
    features: FeatureEngine,
    row: FloatArray,
    side: int,
    enrichment: Enrichment,
) -> Status:
    """Put the model's answer to a row of all built-in features into `enrichment`, or return why it cannot be asked.

    Raises
    ------
    ArithmeticError
        If the answer is none: the numbers in the bundle are wrong.
    """
    x = features.select(row, bundle.feature_names, side) if active.columns is None else row[active.columns]
    model, volatility = bundle.model, enrichment.volatility
    fault = row_fault(x, bundle.feature_low, bundle.feature_high)
    if fault == 1 or (model.uses_odds and not volatility > 0.0):
        return Status.BAD_FEATURES
    if fault:
        return Status.NOVEL_INPUT
    answer = model.answer(x, enrichment.base_odds, volatility)
    confidence, base_odds, low, high, learned = answer
    if not (0.0 <= low <= confidence <= high <= 1.0 and 0.0 <= base_odds <= 1.0):
        raise ArithmeticError(f"model {bundle.version} answered {answer}; train it again")
    if model.knows_return and volatility > 0.0:
        cost = bundle.settings.labels.cost
        expected = model.expected_return(learned, volatility, cost, bundle.return_slope)
        if not -_LARGEST <= expected <= _LARGEST:
            raise ArithmeticError(f"model {bundle.version} expects a return of {expected} bp; train it again")
        enrichment.expected_return = expected
    enrichment.meta_confidence, enrichment.base_odds = confidence, base_odds
    enrichment.confidence_low, enrichment.confidence_high = low, high
    return Status.OK
