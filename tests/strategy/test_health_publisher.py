"""How the strategy is: what is published of it, and when; its execution on a test clock."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml4t_actor.messages import StrategyHealth
from ml4t_actor.messages.strategy_health import NAMES_LENGTH_MAX
from ml4t_actor.strategy.health_publisher import HealthPublisher, _encoded
from ml4t_actor.strategy.journal.order_journal import EntryIntent
from tests.support.desk import Desk, held_before, instrument_id

BTC = str(instrument_id("BTC"))


def watch(desk: Desk) -> list[StrategyHealth]:
    """Return what the desk publishes from now on."""
    published: list[StrategyHealth] = []
    desk.bus.subscribe("data.StrategyHealth*", published.append)
    strategy = desk.strategy
    HealthPublisher(strategy, strategy._entries, strategy._execution, strategy._guard, desk.loop).start()
    return published


def test_nothing_is_wrong_where_only_own_positions_are_held():
    desk = Desk()
    published = watch(desk)
    desk.enter()
    desk.wait(5.0)
    [health] = published
    assert (health.ok, health.problems) == (True, "")
    assert health.strategy_id == str(desk.strategy.id)
    assert health.foreign_by_instrument == health.unsettled_by_order == {}


def test_it_is_published_each_ten_seconds_until_the_strategy_stops():
    desk = Desk()
    published = watch(desk)
    desk.wait(60.5)
    seconds = [(health.ts_event - published[0].ts_event) / 1e9 for health in published]
    assert seconds == pytest.approx([0, 10, 20, 30, 40, 50, 60])
    desk.strategy.stop()
    desk.wait(60.0)
    assert len(published) == 7


@pytest.mark.parametrize("own", [0, 50, -50])
def test_a_position_that_is_not_own_is_named_with_what_of_it_is_not(own):
    def before(desk: Desk) -> None:
        desk.strategy._journal.record_quantity(BTC, Decimal(own))
        held_before(desk, 200)

    desk = Desk(before=before)
    published = watch(desk)
    assert published[-1].foreign_by_instrument == {BTC: 200 - own}
    assert f"{BTC} is not traded, since {200 - own}.000 of its position is not" in published[-1].problems
    assert not published[-1].ok
    held_before(desk, -80)
    desk.wait(1.0)
    assert published[-1].foreign_by_instrument == {BTC: 120 - own}
    held_before(desk, -120)
    desk.wait(2.0)
    assert published[-1].foreign_by_instrument == {}
    assert published[-1].ok
    assert len(published) == 3


def test_an_entry_of_an_earlier_life_is_named_until_it_is_settled():
    intent = EntryIntent("the-id", "test", "42", BTC, 1, Decimal(1), 0)

    def before(desk: Desk) -> None:
        desk.strategy._journal.begin_entry(intent, lambda: None)

    desk = Desk(before=before)
    published = watch(desk)
    assert published[-1].unsettled_by_order == {"the-id": BTC}
    assert f"nothing is entered in {BTC}, since the venue has not said what became of the-id" in (
        published[-1].problems
    )
    assert not published[-1].ok


@given(st.dictionaries(st.text(max_size=200), st.text(max_size=200), max_size=200))
def test_as_many_are_named_as_there_is_room_for(values):
    kept = msgspec.json.decode(_encoded(values), type=dict[str, str])
    assert list(kept.items()) == list(values.items())[: len(kept)]
    one_more = dict(list(values.items())[: len(kept) + 1])
    assert len(_encoded(values)) <= NAMES_LENGTH_MAX
    assert one_more == kept or len(msgspec.json.encode(one_more).decode()) > NAMES_LENGTH_MAX
