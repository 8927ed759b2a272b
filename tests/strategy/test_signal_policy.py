"""Which signals may open, close or do nothing, inside a real `BacktestEngine`; and what a journal adds across lives."""

from collections.abc import Callable, Sequence
from decimal import Decimal

import pytest
from nautilus_trader.core.data import Data
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import Bar
from nautilus_trader.model.objects import Money

from backtests.market import Market, load_markets
from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.strategy import EnrichedSignalStrategy, EnrichedSignalStrategyConfig
from ml4t_actor.strategy.journal.order_journal import DayRecord, EntryIntent, MemoryJournal
from ml4t_actor.strategy.orders.order_ids import Leg, order_id
from ml4t_actor.strategy.risk import RiskLimits
from tests.support.strategy_runs import (
    BOTH_SIDES,
    BUY,
    DAY_START,
    EITHER_ORDER,
    EQUITY,
    HORIZON,
    LOWER,
    MINUTE,
    SELL,
    TAKER,
    Q,
    Run,
    config_for,
    market_of,
    run,
    signals_at,
)

SECOND = MINUTE // 60
DAY = 24 * 60 * MINUTE
ACCOUNT = "BINANCE USDT"


@pytest.fixture(scope="module")
def listed() -> Market:
    return load_markets("binance_1m", synthetic=True)[0]


def at_bar(bar: int) -> int:
    return DAY_START + MINUTE + bar * MINUTE


# One signal, one entry


@EITHER_ORDER
@pytest.mark.parametrize("source", ["test", "other"])
def test_a_signal_that_was_stopped_out_is_not_entered_again(source, after, listed):
    market = market_of(listed, [100.0] * 12, lows={3: 98.6})
    again = {"signal": 1, "signal_id": "a", "source": source}
    result = run(market, {1: {"signal": 1, "signal_id": "a"}, 5: again}, after=after)
    once = [(1, BUY, 100.0, Q), (3, SELL, LOWER, Q)]
    if source == "test":
        assert result.fills == once
        assert result.counts == {"open": 1, "entered_before": 1}
    else:  # ids are a source's own
        assert [fill.bar for fill in result.fills] == [1, 3, 5, 5 + HORIZON]
    assert result.is_clean()


def test_a_repeated_signal_does_not_close_what_followed_it(listed):
    first = {"signal": 1, "signal_id": "a"}
    result = run(market_of(listed, [100.0] * 14), {1: first, 4: -1, 6: first})
    assert [fill.bar for fill in result.fills] == [1, 4, 4, 4 + HORIZON]
    assert result.counts["entered_before"] == 1


def test_a_refused_signal_may_be_repeated(listed):
    poor = {"signal": 1, "signal_id": "a", "meta_confidence": 0.1}
    result = run(market_of(listed, [100.0] * 5), {1: poor, 2: {"signal": 1, "signal_id": "a"}})
    assert result.counts == {"refuse": 1, "open": 1, "exit_stop": 1}


def life(journal: MemoryJournal, market: Market, signals: dict, **arguments) -> Run:
    """Run a strategy with the journal of those before it."""
    config = {k: arguments.pop(k) for k in ("limits", "cooldown_bars") if k in arguments}
    strategy = EnrichedSignalStrategy(config_for([market], **config))
    strategy.use_journal(journal)
    return run(market, signals, strategy=strategy, **arguments)


def test_a_signal_is_not_entered_again_in_another_life(listed):
    journal, signal = MemoryJournal(), {"signal": 1, "signal_id": "a"}
    for n in range(3):
        result = life(journal, market_of(listed, [100.0] * 5), {1: signal})
        assert len(result.fills) == (2 if n == 0 else 0)
    assert journal.open_intents() == []


def test_an_entry_has_the_id_that_follows_from_its_signal(listed):
    result = run(market_of(listed, [100.0] * 5), {1: {"signal": 1, "signal_id": "a"}})
    account = result.engine.cache.accounts()[0].id.value
    expected = order_id(account, result.strategy.id.value, "test", "a", Leg.ENTRY, 1)
    assert result.orders[0].client_order_id == expected


def test_an_intent_ends_with_its_order_whether_it_was_filled_or_not(listed):
    journal = MemoryJournal()
    result = life(journal, market_of(listed, [100.0] * 9), {1: 1, 3: 0, 5: 1})
    assert result.counts["open"] == 2
    assert journal.open_intents() == []


# Age


AGES = {
    "at the greatest age": (60 * SECOND, ""),
    "older": (61 * SECOND, "expired_here"),
    "an hour old": (3_600 * SECOND, "expired_here"),
    "a day old": (DAY, "expired_here"),
    "a little ahead": (-SECOND, ""),
    "ahead": (-2 * SECOND, "future"),
    "of tomorrow": (-DAY, "future"),
}


@pytest.mark.parametrize("sizing", ["flat", "enriched"])
@pytest.mark.parametrize(("age", "count"), AGES.values(), ids=AGES.keys())
def test_a_signal_of_another_time_opens_nothing_and_closes_nothing(age, count, sizing, listed):
    market = market_of(listed, [100.0] * 5)
    opening = run(market, {2: {"signal": 1, "ts_event": at_bar(2) - age}}, sizing=sizing)
    assert opening.counts == ({count: 1} if count else {"open": 1, "exit_stop": 1})
    closing = run(market, {1: 1, 3: {"signal": 0, "ts_event": at_bar(3) - age}}, sizing=sizing)
    assert closing.counts == {"open": 1} | (
        {count: 1, "exit_stop": 1} if count else {"close": 1, "exit_signal": 1}
    )


def test_the_greatest_age_can_be_set(listed):
    signal = {2: {"signal": 1, "ts_event": at_bar(2) - 3_600 * SECOND}}
    result = run(market_of(listed, [100.0] * 5), signal, max_signal_age=3_600.0)
    assert result.counts["open"] == 1


@pytest.mark.parametrize(("ahead", "counted"), [(0, "open"), (1, "open"), (2, "future")])
def test_how_far_ahead_a_source_may_be_can_be_set(ahead, counted, listed):
    signal = {2: {"signal": 1, "ts_event": at_bar(2) + ahead * SECOND // 1_000}}
    assert run(market_of(listed, [100.0] * 5), signal, max_clock_skew_ms=1).counts[counted] == 1


def test_strategy_and_actor_allow_the_same_skew_by_default():
    assert EnrichedSignalStrategyConfig().max_clock_skew_ms == ML4TActorConfig().max_clock_skew_ms


# Status


@pytest.mark.parametrize("sizing", ["flat", "enriched"])
@pytest.mark.parametrize(
    "status",
    [
        "late",
        "no_model",
        "warming_up",
        "stale_data",
        "bad_features",
        "novel_input",
        "unknown_instrument",
        "error",
    ],
)
def test_only_ok_opens_unless_a_setting_says_so(status, sizing, listed):
    market = market_of(listed, [100.0] * 5)
    signals = {1: {"signal": 1, "status": status}}
    refused = run(market, signals, sizing=sizing)
    assert refused.counts == {"no_answer": 1, "refuse": 1}
    allowed = run(market, signals, sizing=sizing, trade_statuses=["ok", status])
    assert allowed.counts == {"open": 1, "exit_stop": 1}


@pytest.mark.parametrize("side", [0, -1])
def test_whatever_the_status_a_signal_against_a_position_closes_it(side, listed):
    result = run(market_of(listed, [100.0] * 8), {1: 1, 4: {"signal": side, "status": "error"}})
    assert result.fills == [(1, BUY, 100.0, Q), (4, SELL, 100.0, Q)]


# Cooldown


@EITHER_ORDER
@pytest.mark.parametrize(("cooldown", "n"), [(0, 26), (1, 9), (3, 4)])
def test_soon_after_an_entry_a_signal_against_it_only_closes(cooldown, n, after, listed):
    signals = {1 + n: (1 if n % 2 == 0 else -1) for n in range(26)}
    result = run(market_of(listed, [100.0] * 29), signals, after=after, cooldown_bars=cooldown)
    entries: list[tuple[int, int]] = []
    side, refused = 0, -99
    for bar, signal in signals.items():  # restated
        if side and signal == -side:
            side = 0
        if entries and signal == -entries[-1][1] and bar - entries[-1][0] <= cooldown:
            refused = bar
        elif side == 0 and bar - refused > cooldown:
            side = signal
            entries.append((bar, signal))
    opened = [o for o in result.orders if o.parent_order_id is None and not o.is_reduce_only]
    assert len(opened) == len(entries) == n


def test_a_signal_that_confirms_the_last_entry_may_open_again_at_once(listed):
    market = market_of(listed, [100.0] * 9)
    result = run(market, {1: 1, 2: 0, 3: 1}, cooldown_bars=5)
    assert [fill.bar for fill in result.fills] == [1, 2, 3, 8]


def test_a_cooldown_goes_on_in_another_life(listed):
    journal = MemoryJournal()
    life(journal, market_of(listed, [100.0] * 3), {1: 1})
    market = market_of(listed, [100.0] * 9, start=at_bar(3))
    result = life(journal, market, {0: -1, 5: -1}, cooldown_bars=3)
    assert result.counts == {"cooldown": 1, "refuse": 1, "open": 1, "exit_stop": 1}


# Sources


@BOTH_SIDES
@EITHER_ORDER
def test_a_position_belongs_to_the_source_that_opened_it(side, after, listed):
    others = {n: {"signal": s, "source": "other"} for n, s in ((2, 0), (3, -side), (4, side))}
    result = run(market_of(listed, [100.0] * 12), {1: side, **others}, after=after)
    assert result.fills == [(1, side, 100.0, Q), (1 + HORIZON, -side, 100.0, Q)]
    assert result.counts == {"open": 1, "other_source": 3, "exit_horizon": 1}
    assert result.is_clean()


def test_when_it_is_closed_another_source_may_open(listed):
    signals = {1: 1, 3: 0, 5: {"signal": -1, "source": "other"}, 6: 0, 7: {"signal": 0, "source": "other"}}
    result = run(market_of(listed, [100.0] * 12), signals)
    assert [fill.bar for fill in result.fills] == [1, 3, 5, 7]
    assert result.counts["other_source"] == 1


@EITHER_ORDER
def test_a_close_that_waits_is_not_overtaken_by_another_source(after, listed):
    signals = {1: [1, 0, {"signal": 1, "source": "other"}]}
    result = run(market_of(listed, [100.0] * 4), signals, after=after)
    assert result.fills == [(1, BUY, 100.0, Q), (1, SELL, 100.0, Q)]
    assert result.counts == {"open": 1, "other_source": 1, "close": 1, "exit_signal": 1}


# The day's loss


def balance_of(result: Run) -> Money:
    return result.engine.cache.accounts()[0].balance_total(USDT)


@pytest.mark.parametrize("n_lives", [3, 6])
def test_several_lives_of_a_day_lose_what_one_may(n_lives, listed):
    limits = RiskLimits(max_daily_loss=0.02)
    journal, balance, entered = MemoryJournal(), Money(EQUITY, USDT), 0
    for n in range(n_lives):  # each would lose 1.1 %
        market = market_of(listed, [100.0] * 6, lows={3: 98.6}, start=DAY_START + MINUTE * (1 + 10 * n))
        result = life(journal, market, {1: 1, 5: 1}, balance=balance, limits=limits)
        entered += result.counts.get("open", 0)
        balance = balance_of(result)
    one_trade = 0.01 + 2 * TAKER
    assert 1.0 - float(balance) / EQUITY < 0.02 + one_trade / 2
    assert journal.day(ACCOUNT) is not None
    assert journal.day(ACCOUNT).open_equity == EQUITY


def test_a_halt_outlives_the_life_and_ends_with_the_day(listed):
    journal = MemoryJournal()
    journal.record_day(DayRecord(ACCOUNT, DAY_START // DAY, Decimal(EQUITY), True))
    halted = life(journal, market_of(listed, [100.0] * 4), {1: 1})
    assert halted.counts == {"daily_loss": 1, "refuse": 1}
    tomorrow = life(journal, market_of(listed, [100.0] * 4, start=DAY_START + DAY + MINUTE), {1: 1})
    assert tomorrow.counts["open"] == 1
    assert journal.day(ACCOUNT) == DayRecord(ACCOUNT, DAY_START // DAY + 1, Decimal(EQUITY), False)


def test_the_loss_of_the_day_counts_from_the_older_opening(listed):
    journal = MemoryJournal()
    journal.record_day(DayRecord(ACCOUNT, DAY_START // DAY, Decimal(EQUITY) / Decimal("0.97"), False))
    result = life(journal, market_of(listed, [100.0] * 4), {1: 1}, limits=RiskLimits(max_daily_loss=0.02))
    assert "open" not in result.counts
    assert journal.day(ACCOUNT).halted


# Closes


def test_what_an_earlier_life_was_to_close_is_closed_at_the_start_and_forgotten_when_flat(listed):
    journal = MemoryJournal()
    journal.want_exit(listed.instrument.id.value)
    result = life(journal, market_of(listed, [100.0] * 9), {1: 1})
    assert journal.exits_wanted() == []  # nothing was held
    assert [fill.bar for fill in result.fills] == [1, 1 + HORIZON]


class Watching(MemoryJournal):
    """Notes for each position that is to be closed whether its entry was still on its way."""

    def __init__(self) -> None:
        super().__init__()
        self.entering: list[bool] = []

    def want_exit(self, instrument_id: str) -> None:
        if instrument_id not in self._exits:
            self.entering.append(bool(self._open))
        super().want_exit(instrument_id)


@pytest.mark.parametrize(("waiting", "closes"), [(0, True), (-1, True), (1, False)])
def test_a_close_that_waits_for_an_order_in_flight_is_written_down_before_that_is_done(
    waiting, closes, listed
):
    journal = Watching()
    life(journal, market_of(listed, [100.0] * 9), {1: [1, waiting]})
    assert journal.entering == [closes]  # else it is the horizon's exit
    assert journal.exits_wanted() == []


def test_of_two_signals_that_wait_the_newer_says_whether_a_position_is_to_be_closed(listed):
    journal = Watching()
    result = life(journal, market_of(listed, [100.0] * 9), {1: [1, 0, 1]})
    assert [fill.bar for fill in result.fills] == [1, 1 + HORIZON]
    assert journal.entering == [True, False]


# A journal that cannot be written


class Slow(MemoryJournal):
    """Is done with an entry, but for the first, when it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Callable[[], None]] = []

    def begin_entry(self, intent: EntryIntent, then: Callable[[], None]) -> None:
        first = self.newest_entry(intent.instrument_id) is None
        super().begin_entry(intent, then if first else lambda: self.held.append(then))

    def release(self) -> None:
        for then in self.held:
            then()
        self.held.clear()


def test_while_an_entry_is_not_durable_it_is_not_sent_and_exits_go_on(listed):
    journal = Slow()
    market = market_of(listed, [100.0] * 20)
    result = life(journal, market, {1: 1, 3: 0, 5: 1, 7: 1, 9: 0})
    assert result.fills == [(1, BUY, 100.0, Q), (3, SELL, 100.0, Q)]
    assert result.counts == {"open": 1, "close": 1, "exit_signal": 1, "overtaken": 2}
    assert [intent.ts for intent in journal.open_intents()] == [at_bar(5)]


@pytest.mark.parametrize(("order_timeout", "count"), [(10.0, "journal_late"), (61.0, "open")])
def test_an_entry_that_was_written_down_too_late_is_not_sent(order_timeout, count, listed):
    journal, market = Slow(), market_of(listed, [100.0] * 20)
    signals = signals_at(market, {1: 1, 3: 0, 5: 1})

    def make(bar: Bar) -> Sequence[Data]:
        if bar.ts_event == at_bar(6):
            journal.release()
        return signals(bar)

    strategy = EnrichedSignalStrategy(config_for([market], order_timeout=order_timeout))
    strategy.use_journal(journal)
    result = run(market, make, strategy=strategy)
    assert result.counts[count] == (1 if count == "journal_late" else 2)
    assert len(result.fills) == (2 if count == "journal_late" else 4)
    assert journal.open_intents() == []
