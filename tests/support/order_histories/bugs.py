"""Known bugs, to be planted: whether the checker finds them says what it is worth.

Each is named after what is wrong, with the point of issue 10 that it takes back, and the invariants of which one has to
fail.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import pytest

from ml4t_actor.messages import Status
from ml4t_actor.nautilus.model import ClientOrderId, Quantity
from ml4t_actor.strategy.account.live_equity import LiveEquity
from ml4t_actor.strategy.account.reservations import Reservations
from ml4t_actor.strategy.execution.live_execution import LiveExecution
from ml4t_actor.strategy.execution.live_orders import LiveOrders
from ml4t_actor.strategy.journal.order_journal import MemoryJournal
from ml4t_actor.strategy.orders.attempts import OrderAttempts
from ml4t_actor.strategy.orders.order_ids import Leg, account_of, order_id
from ml4t_actor.strategy.orders.trade import Trade
from ml4t_actor.strategy.risk import RiskStage
from ml4t_actor.strategy.signal_policy import SignalPolicy
from ml4t_actor.strategy.strategy import EnrichedSignalStrategy

type Plant = Callable[[pytest.MonkeyPatch], None]


class Bug(NamedTuple):
    """A bug, and the invariants that show it."""

    plant: Plant
    shown_by: frozenset[str]


BUGS: dict[str, Bug] = {}


def _shown_by(*invariants: str) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        BUGS[plant.__name__] = Bug(plant, frozenset(invariants))
        return plant

    return register


@_shown_by("leverage")
def entries_on_their_way_do_not_count(patch: pytest.MonkeyPatch) -> None:  # point 1
    patch.setattr(Reservations, "of", lambda self, account: iter(()))


@_shown_by("leverage", "position")
def the_account_is_not_looked_at_again(patch: pytest.MonkeyPatch) -> None:  # point 2
    patch.setattr(LiveEquity, "_on_account_state", lambda self, event: None)


@_shown_by("daily loss", "reserved risk")
def a_restart_forgets_the_day(patch: pytest.MonkeyPatch) -> None:  # point 3
    patch.setattr(MemoryJournal, "day", lambda self, account: None)


@_shown_by("result", "daily loss", "reserved risk")
def a_loss_that_only_the_venue_knows_is_a_withdrawal(patch: pytest.MonkeyPatch) -> None:  # point 2
    patch.setattr(LiveEquity, "_doubt", lambda self, key: None)


@_shown_by("result", "daily loss", "reserved risk")
def what_is_paid_in_is_a_profit(patch: pytest.MonkeyPatch) -> None:  # point 2
    patch.setattr(LiveEquity, "_shift_opening", lambda self, *what: None)


@_shown_by("age")
def signals_of_any_age_are_traded(patch: pytest.MonkeyPatch) -> None:  # point 7
    def accept(self: SignalPolicy, enriched: Any, now: int) -> bool:
        return bool(
            enriched.status != Status.EXPIRED
            and not self._journal.was_entered(enriched.source, enriched.signal_id)
        )

    patch.setattr(SignalPolicy, "accept", accept)
    why_not_open = SignalPolicy.why_not_open
    patch.setattr(
        SignalPolicy,
        "why_not_open",
        lambda self, enriched, now: why_not_open(self, enriched, enriched.ts_event),
    )


@_shown_by("thread")
def signals_are_decided_on_the_thread_that_brings_them(patch: pytest.MonkeyPatch) -> None:  # point 7
    patch.setattr(
        EnrichedSignalStrategy, "on_data", lambda self, data: self._guard(self._process_signal, data)
    )


@_shown_by("once", "id")
def what_was_entered_is_forgotten(patch: pytest.MonkeyPatch) -> None:  # point 8
    patch.setattr(MemoryJournal, "was_entered", lambda self, source, signal_id: False)


@_shown_by("id", "protection", "target")
def ids_do_not_count_the_attempts(patch: pytest.MonkeyPatch) -> None:  # point 8
    def next_id(self: OrderAttempts, trade: Trade, leg: Leg) -> ClientOrderId:
        trade.attempts[leg] += 1
        signal = ("", "") if trade.plan is None else (trade.plan.source, trade.plan.signal_id)
        account = account_of(self._strategy, trade.instrument_id)
        new = order_id(account, str(self._strategy.id), *signal, leg, 1)
        self.remember(new)
        return new

    patch.setattr(OrderAttempts, "next_id", next_id)


@_shown_by("stop")
def a_stop_waits_for_nothing(patch: pytest.MonkeyPatch) -> None:  # point 6
    patch.setattr(EnrichedSignalStrategy, "is_settled", lambda self: True)
    patch.setattr(EnrichedSignalStrategy, "unprotected", lambda self: [])


@_shown_by("back off", "storm")
def refused_exits_are_sent_again_at_once(patch: pytest.MonkeyPatch) -> None:  # point 9
    patch.setattr("ml4t_actor.strategy.execution.live_execution.backoff_ns", lambda refusals, denied: 0)
    on_order_event = LiveExecution.on_order_event

    def exit_again(self: LiveExecution, event: Any) -> bool:
        must_wait = on_order_event(self, event)
        trade = self.trades.get(event.instrument_id)
        if trade is not None and trade.exit_decided and type(event).__name__ == "OrderRejected":
            self.exit(event.instrument_id, "again")
        return must_wait

    patch.setattr(LiveExecution, "on_order_event", exit_again)


@_shown_by("target", "target at quiet")
def a_denied_target_is_not_sent_again(patch: pytest.MonkeyPatch) -> None:  # point 9
    patch.setattr(
        "ml4t_actor.strategy.execution.protection.Protection.retry_target", lambda self, trade: False
    )
    resume = "ml4t_actor.strategy.execution.reconciliation.Reconciliation._resume_target"
    patch.setattr(resume, lambda self, trade, position, stop: None)


@_shown_by("hand")
def positions_held_by_hand_are_taken_for_own(patch: pytest.MonkeyPatch) -> None:  # point 11
    patch.setattr("tests.support.order_histories.node.ADOPT_POSITIONS", True)


@_shown_by("protection", "protection at quiet")
def the_stop_is_for_half_of_what_is_held(patch: pytest.MonkeyPatch) -> None:
    send_stop = LiveOrders.send_stop

    def send_half(self: LiveOrders, trade: Any, side: Any, price: Any, quantity: Quantity) -> None:
        half = Quantity(quantity.as_decimal() / 2, quantity.precision)
        send_stop(self, trade, side, price, half if half > 0 else quantity)

    patch.setattr(LiveOrders, "send_stop", send_half)
    patch.setattr(Trade, "is_covered", lambda self, held: self.stop is not None)


@_shown_by("protection", "protection at quiet")
def an_entry_without_an_answer_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    def forget(self: LiveExecution, trade: Any) -> None:
        trade.entry_done = True
        self.trades.pop(trade.instrument_id, None)

    patch.setattr(LiveExecution, "_begin_unwinding", forget)
    patch.setattr(LiveExecution, "_reconcile", lambda self, instrument_id: None)


@_shown_by("status")
def any_status_opens(patch: pytest.MonkeyPatch) -> None:  # point 14
    why_not_open = SignalPolicy.why_not_open

    class _Ok:
        status = "ok"

        def __init__(self, enriched: Any) -> None:
            self._enriched = enriched

        def __getattr__(self, name: str) -> Any:
            return getattr(self._enriched, name)

    patch.setattr(
        SignalPolicy, "why_not_open", lambda self, enriched, now: why_not_open(self, _Ok(enriched), now)
    )


@_shown_by("daily loss", "reserved risk")
def the_daily_loss_stops_nothing(patch: pytest.MonkeyPatch) -> None:
    execute = RiskStage.execute

    def execute_anyhow(self: RiskStage, enriched: Any, account: Any, *rest: Any, **more: Any) -> Any:
        class _NoLoss:
            day_open_equity = account.equity
            open_risk = Decimal(0)

            def __getattr__(self, name: str) -> Any:
                return getattr(account, name)

        return execute(self, enriched, _NoLoss(), *rest, **more)

    patch.setattr(RiskStage, "execute", execute_anyhow)
    halted = property(lambda self: set(), lambda self, value: None)
    patch.setattr("ml4t_actor.strategy.account.equity.Equity.halted", halted, raising=False)


@contextmanager
def planted(name: str) -> Iterator[None]:
    """While the context lasts, the code has the bug of this name; none if it is empty."""
    with pytest.MonkeyPatch.context() as patch:
        if name:
            BUGS[name].plant(patch)
        yield
