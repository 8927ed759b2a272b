"""Targets that did not arrive, on a test clock: each position has one at the venue again in bounded time."""

import pytest
from nautilus_trader.model.enums import OrderStatus

from tests.support.desk import Desk

TIMEOUT_S = 4.0  # the desk's `order_timeout`


def loses_targets(desk, *, answers=1):
    """Let the venue answer all but the first targets."""
    left = [answers]

    def answer(order):
        if "TAKE_PROFIT" in (order.tags or []):
            left[0] -= 1
            if left[0] >= 0:
                return
        rests = order.has_trigger_price or "TAKE_PROFIT" in (order.tags or [])
        (desk.client.accept if rests else desk.client.fill)(order)

    desk.client.answer = answer


@pytest.mark.parametrize("late_s", [0.0, 1.5, 3.5])
def test_a_position_is_left_whose_stop_is_not_answered_within_the_timeout_of_its_fill(late_s):
    """However late the fill is reported: what the venue takes for it is not added to what it takes for the stop."""
    desk = Desk()
    desk.signal(1)
    [entry] = desk.sent
    desk.wait(late_s)
    desk.client.fill(entry, since_s=late_s)
    desk.wait(TIMEOUT_S - late_s - 0.1)
    assert desk.closing() == []
    assert len(desk.of("STOP_LOSS")) == 1
    desk.wait(1.3)
    assert len(desk.closing()) == 1
    assert desk.counts["exit_no_stop"] == 1


class TestUnansweredTargets:
    @pytest.mark.parametrize("n_lost", [1, 2, 3])
    def test_each_is_replaced_within_its_timeout(self, n_lost):
        desk = Desk()
        loses_targets(desk, answers=n_lost)
        desk.signal(1)
        # A second until the strategy looks; from the third on the back-off is longer than the timeout.
        waits_s = [max(TIMEOUT_S, 2.0**n) + 1.0 for n in range(1, n_lost + 1)]
        desk.wait(sum(waits_s) - 1.5)
        assert len(desk.of("TAKE_PROFIT")) == n_lost
        desk.wait(2.0)
        statuses = [OrderStatus.PENDING_CANCEL] * n_lost + [OrderStatus.ACCEPTED]
        assert [o.status for o in desk.of("TAKE_PROFIT")] == statuses
        assert desk.counts["target_unanswered"] == n_lost
        assert len({o.client_order_id for o in desk.of("TAKE_PROFIT")}) == n_lost + 1

    def test_the_old_one_is_cancelled_since_it_may_be_at_the_venue(self):
        desk = Desk()
        loses_targets(desk)
        desk.signal(1)
        desk.wait(TIMEOUT_S + 2.0)
        lost, new = desk.of("TAKE_PROFIT")
        assert lost in desk.client.cancelled
        assert new not in desk.client.cancelled

    def test_one_that_is_answered_in_time_is_left_alone(self):
        desk = Desk()
        desk.enter()
        desk.wait(10 * TIMEOUT_S)
        assert len(desk.of("TAKE_PROFIT")) == 1
        assert "target_unanswered" not in desk.counts

    def test_one_that_was_there_after_all_keeps_nothing_from_being_cleared(self):
        desk = Desk()
        loses_targets(desk)
        desk.signal(1)
        desk.wait(TIMEOUT_S + 2.0)
        lost, new = desk.of("TAKE_PROFIT")
        desk.client.accept(lost)  # neither the order nor its cancellation was answered, and it rests
        desk.client.cancelled.clear()
        desk.signal(0)
        desk.wait(TIMEOUT_S + 2.0)
        assert desk.held() == 0
        assert {lost, new, *desk.of("STOP_LOSS")} <= set(desk.client.cancelled)
        for order in {lost, new, *desk.of("STOP_LOSS")}:
            desk.client.cancel(order)
        desk.wait(2.0)
        assert desk.strategy.is_settled()

    def test_the_old_one_is_forgotten_where_the_venue_never_had_it(self):
        desk = Desk()
        loses_targets(desk)
        desk.signal(1)
        desk.wait(TIMEOUT_S + 2.0)
        lost = desk.of("TAKE_PROFIT")[0]
        desk.client.generate_order_cancel_rejected(
            lost.strategy_id, lost.instrument_id, lost.client_order_id, None, "never placed", desk.client._now
        )
        desk.wait(1.0)
        assert not lost.is_closed  # Nautilus asks on
        [trade] = desk.strategy._execution.trades.values()
        assert lost not in trade.exits
