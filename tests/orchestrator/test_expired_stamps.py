"""Signals that are stamped with the open of a bar: counted, and it is said what to do."""

import pytest

from ml4t_actor import ML4TActorConfig, ML4TOrchestrator, SignalData
from ml4t_actor.market_data import MINUTE_NS, SECOND_NS
from ml4t_actor.orchestrator.expired_stamps import _MAX_SOURCES, ExpiredStamps

ID = "ETH.SIM"
KIND = "stamped_at_open"


class Case:
    """An orchestrator that has seen ten bars of a minute, and signals of several ages."""

    def __init__(self, tmp_path, **config: object) -> None:
        bar_types = [f"{ID}-1-MINUTE-LAST-EXTERNAL"]
        self.orchestrator = ML4TOrchestrator(
            ML4TActorConfig(bar_types=bar_types, model_path=str(tmp_path), **config)
        )
        self.orchestrator.start()
        self.n = 0
        for minute in range(1, 11):
            self.bar(minute)

    def bar(self, minute: int) -> None:
        self.orchestrator.update_bar(ID, minute * MINUTE_NS, 1.0, 1.0, 1.0, 1.0, 1.0)

    def signal(self, ts_event: int, now_ns: int, source: str = "me", instrument_id: str = ID) -> str:
        self.n += 1
        signal = SignalData(
            instrument_id=instrument_id,
            signal=1,
            strength=1.0,
            source=source,
            signal_id=str(self.n),
            ts_event=ts_event,
        )
        return self.orchestrator.process_signal(signal, now_ns=now_ns).status

    @property
    def count(self) -> int:
        return self.orchestrator.problems.counts[KIND]


@pytest.fixture
def case(tmp_path) -> Case:
    return Case(tmp_path)


@pytest.mark.parametrize("off_ns", [0, 128, -128])  # such stamps have passed through a float
def test_a_signal_stamped_with_the_last_bars_open_is_counted_at_once(case, off_ns):
    now = 10 * MINUTE_NS + SECOND_NS // 5
    assert case.signal(9 * MINUTE_NS + off_ns, now) == "expired"
    assert case.count == 1


def test_so_is_one_stamped_with_the_close_of_a_bar_that_itself_is_stamped_at_its_open(case):
    now = 11 * MINUTE_NS + SECOND_NS // 5  # the bar that really closed at 11 is stamped 10
    assert case.signal(10 * MINUTE_NS, now) == "expired"
    assert case.count == 1


def test_a_signal_of_the_close_is_none_of_them(case):
    assert case.signal(10 * MINUTE_NS, 10 * MINUTE_NS + SECOND_NS) != "expired"
    assert case.count == 0


@pytest.mark.parametrize("age_s", [75.0, 3_600.0])
def test_nor_is_one_that_is_only_late(case, age_s):
    now = 100 * MINUTE_NS + 7 * SECOND_NS
    assert case.signal(now - int(age_s * SECOND_NS), now) == "expired"
    assert case.count == 0


def test_a_source_with_longer_bars_is_recognised_by_the_third_of_one_age(case):
    for hour in range(1, 5):
        now = hour * 60 * MINUTE_NS + hour * SECOND_NS
        assert case.signal((hour - 1) * 60 * MINUTE_NS, now, "hourly") == "expired"
        assert case.count == max(hour - 2, 0)


def test_a_source_whose_signals_are_now_late_and_now_not_is_not_accused(case):
    for hour in range(10, 19):
        now = hour * 60 * MINUTE_NS + 7 * SECOND_NS
        age_ns = 2 * 60 * MINUTE_NS if hour % 2 else SECOND_NS
        case.signal(now - age_ns, now, "unsteady")
    for i in range(6):  # all late, but by something else each time: a queue that is worked off
        now = 600 * MINUTE_NS + i
        case.signal(now - (i + 2) * 77 * SECOND_NS, now, "behind")
    assert case.count == 0


def test_what_has_waited_together_and_is_read_at_once_is_not_accused(case):
    now = 600 * MINUTE_NS + 7 * SECOND_NS
    for i in range(20):
        assert case.signal(now - 120 * SECOND_NS + i, now, "backlog") == "expired"
    assert case.count == 0


def test_an_instrument_that_is_not_followed_is_answered_as_ever(case):
    now = 10 * MINUTE_NS
    assert case.signal(9 * MINUTE_NS, now, instrument_id="BTC.SIM") == "unknown_instrument"
    assert case.count == 0


def test_the_remedy_is_said(case, caplog):
    with caplog.at_level("WARNING"):
        case.signal(9 * MINUTE_NS, 10 * MINUTE_NS + SECOND_NS)
    assert "stamped with the open of a bar of about 60 s" in caplog.text
    assert "stamp signals with the bar's close" in caplog.text


def test_sources_without_number_take_no_room():
    stamps = ExpiredStamps()
    for i in range(3 * _MAX_SOURCES):
        signal = SignalData(
            instrument_id=ID, signal=1, strength=1.0, source=str(i), signal_id="1", ts_event=0
        )
        stamps.explain(signal, 10**12, None, 0)
    assert len(stamps._streaks) == _MAX_SOURCES
