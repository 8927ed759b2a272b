"""What was decided about each signal: counted, logged and published."""

from collections import Counter
from dataclasses import replace

from ml4t_actor.messages import EnrichedSignal
from ml4t_actor.nautilus.trading import Strategy
from ml4t_actor.strategy.causes import Cause, SignalDecision, cause_of
from ml4t_actor.strategy.risk import Action, RiskDecision


class DecisionLog:
    """Counts decisions by what is done and by what kept a signal from opening; logs and publishes each.

    Parameters
    ----------
    strategy : Strategy
        For its log and its bus.
    counts : Counter[str]
        Of actions, and of what the strategy itself refuses.
    causes : Counter[Cause]
        Of what kept signals from opening a position.
    """

    def __init__(self, strategy: Strategy, counts: Counter[str], causes: Counter[Cause]) -> None:
        self._strategy, self._counts, self._causes = strategy, counts, causes

    def leave_open(self, enriched: EnrichedSignal) -> None:
        """Count a signal that leaves a position to its barriers."""
        self._counts["left_open"] += 1
        if enriched.signal:
            self._causes["position"] += 1

    def refuse(self, decision: RiskDecision, name: str) -> RiskDecision:
        """Return what is left of a decision to open or to reverse that the strategy refuses under this name."""
        self._counts[name] += 1
        action: Action = "refuse" if decision.action == "open" else "close"
        return replace(decision, action=action, reason=name, cause=cause_of(name))

    def record(self, enriched: EnrichedSignal, decision: RiskDecision) -> None:
        """Write down a decision that is carried out."""
        action, cause = decision.action, decision.cause
        self._counts[action] += 1
        if cause:
            self._causes[cause] += 1
        instrument_id, source, signal_id = enriched.instrument_id, enriched.source, enriched.signal_id
        self._strategy.log.info(f"{signal_id} of {source} for {instrument_id}: {action}, {decision.reason}")
        self._strategy.msgbus.publish(
            f"decisions.{self._strategy.id}",
            SignalDecision(instrument_id, source, signal_id, action == "open", cause, decision.target),
            external_pub=False,
        )
