"""How the strategy is, published when it has changed and now and then: what it does not trade though it is to."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal

import msgspec

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.messages import StrategyHealth
from ml4t_actor.messages.health import PROBLEMS_LENGTH_MAX
from ml4t_actor.messages.strategy_health import NAMES_LENGTH_MAX
from ml4t_actor.nautilus.model import DataType
from ml4t_actor.nautilus.trading import Strategy
from ml4t_actor.strategy.execution.order_execution import Guard, OrderExecution
from ml4t_actor.strategy.journal.entries import Entries

_CHECK_S = 1.0
_REPEAT_NS = 10 * SECOND_NS


class HealthPublisher:
    """Publishes a `StrategyHealth` when it is another than the last, and each ten seconds.

    Parameters
    ----------
    strategy : Strategy
        For its clock and bus.
    entries : Entries
        Of which some may be unsettled.
    execution : OrderExecution
        Knows which positions are foreign.
    guard : Guard
        Calls what the event loop calls back.
    loop : asyncio.AbstractEventLoop
        Of the event thread.
    """

    def __init__(
        self,
        strategy: Strategy,
        entries: Entries,
        execution: OrderExecution,
        guard: Guard,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._strategy, self._entries, self._execution = strategy, entries, execution
        self._guard, self._loop = guard, loop
        self._type = DataType(StrategyHealth)
        self._last: StrategyHealth | None = None

    def start(self) -> None:
        """Publish, and go on until the strategy stops."""
        self._guard(self._publish)
        self._loop.call_later(_CHECK_S, self._on_timer)

    def _on_timer(self) -> None:
        if self._strategy.is_running:
            self.start()

    def _publish(self) -> None:
        health, last = self._report(), self._last
        if last is None or _differs(health, last) or health.ts_event - last.ts_event >= _REPEAT_NS:
            self._last = health
            self._strategy.publish_data(self._type, health)

    def _report(self) -> StrategyHealth:
        now_ns = self._strategy.clock.timestamp_ns()
        foreign = {i.value: quantity for i, quantity in self._execution.foreign_positions().items()}
        unsettled = {intent.order_id: intent.instrument_id for intent in self._entries.unsettled()}
        problems = "; ".join(
            [*map(_foreign_problem, foreign, foreign.values()), *_unsettled_problems(unsettled)]
        )
        return StrategyHealth(
            strategy_id=self._strategy.id.value,
            foreign_positions=_encoded(foreign),
            unsettled_entries=_encoded(unsettled),
            ok=not problems,
            problems=_cut(problems),
            ts_event=now_ns,
            ts_init=now_ns,
        )


def _differs(health: StrategyHealth, other: StrategyHealth) -> bool:
    return (health.foreign_positions, health.unsettled_entries) != (
        other.foreign_positions,
        other.unsettled_entries,
    )


def _foreign_problem(instrument_id: str, quantity: Decimal) -> str:
    return (
        f"{instrument_id} is not traded, since {quantity} of its position is not the strategy's own: close it by hand, "
        "or set `adopt_positions`"
    )


def _unsettled_problems(unsettled: Mapping[str, str]) -> list[str]:
    return [
        f"nothing is entered in {instrument_id}, since the venue has not said what became of {order_id}: look into the "
        "log, or settle it by `python -m ml4t_actor.strategy` while the node is down"
        for order_id, instrument_id in unsettled.items()
    ]


def _encoded(values: Mapping[str, object]) -> str:
    """Return JSON no longer than allowed: where there are too many, the last ones go."""
    kept = dict(values)
    while len(encoded := msgspec.json.encode(kept).decode()) > NAMES_LENGTH_MAX:
        kept.popitem()
    return encoded


def _cut(problems: str) -> str:
    return problems if len(problems) <= PROBLEMS_LENGTH_MAX else f"{problems[: PROBLEMS_LENGTH_MAX - 3]}..."
