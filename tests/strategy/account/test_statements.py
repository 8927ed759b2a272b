"""Questions to a venue about an account: on a thread of their own, one at a time, until there is an answer."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from decimal import Decimal

import pytest

from ml4t_actor.strategy.account import statements
from ml4t_actor.strategy.account.statements import AccountStatement, StatementRequest, Statements

WAIT_S = 20.0
ANSWER = AccountStatement("USDC", 1, Decimal(7), {})


class Venue:
    """Answers when a test lets it, and fails as often as it is told to."""

    def __init__(self) -> None:
        self.asked: queue.Queue[tuple[int, tuple[str, ...], int]] = queue.Queue()
        self.fills_since_ms: list[int | None] = []
        self.may_answer = threading.Semaphore(0)
        self.failures = 0

    def statement(
        self, since_ms: int, symbols: tuple[str, ...], fills_since_ms: int | None
    ) -> AccountStatement:
        self.fills_since_ms.append(fills_since_ms)
        self.asked.put((since_ms, symbols, threading.get_ident()))
        assert self.may_answer.acquire(timeout=WAIT_S)
        if self.failures:
            self.failures -= 1
            raise OSError("no answer")
        return ANSWER


class Desk:
    """The event thread: calls what it is given when the test does."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(statements, "_FIRST_PAUSE_S", 0.01)
        self.venue, self.calls = Venue(), queue.Queue[Callable[[], None]]()
        self.answers: list[tuple[StatementRequest, AccountStatement]] = []
        self.problems: list[tuple[str, str]] = []
        self.statements = Statements(
            {"V": self.venue},
            self.calls.put,
            lambda request, statement: self.answers.append((request, statement)),
            lambda venue, why: self.problems.append((venue, why)),
        )

    def turn(self) -> None:
        self.calls.get(timeout=WAIT_S)()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    desk = Desk(monkeypatch)
    yield desk
    desk.statements.stop()
    desk.venue.may_answer.release(100)


def test_it_is_asked_on_another_thread_and_answered_on_the_event_thread(desk):
    before = time.time_ns()
    desk.statements.request(StatementRequest("V", 5, ("BTC",), 4))
    since_ms, symbols, thread = desk.venue.asked.get(timeout=WAIT_S)
    assert (since_ms, symbols) == (5, ("BTC",))
    assert thread != threading.get_ident()
    desk.venue.may_answer.release()
    assert desk.answers == []
    desk.turn()
    ((request, statement),) = desk.answers
    assert statement is ANSWER
    assert desk.venue.fills_since_ms == [4]
    assert request == StatementRequest("V", 5, ("BTC",), 4, request.asked_ns)
    assert before <= request.asked_ns <= time.time_ns()


def test_while_it_is_asked_it_is_not_asked_again(desk):
    for since_ms in (1, 2):
        desk.statements.request(StatementRequest("V", since_ms))
    assert desk.venue.asked.get(timeout=WAIT_S)[0] == 1
    desk.venue.may_answer.release()
    desk.turn()
    assert desk.venue.asked.empty()
    desk.statements.request(StatementRequest("V", 3))
    assert desk.venue.asked.get(timeout=WAIT_S)[0] == 3


def test_an_answer_may_lead_to_the_next_question(desk):
    def ask_on(request: StatementRequest, _statement: AccountStatement) -> None:
        if request.since_ms == 1:
            desk.statements.request(StatementRequest("V", 2))

    desk.statements._on_statement = ask_on
    desk.statements.request(StatementRequest("V", 1))
    desk.venue.may_answer.release(2)
    desk.turn()
    desk.turn()
    assert [desk.venue.asked.get(timeout=WAIT_S)[0] for _ in range(2)] == [1, 2]


def test_without_an_answer_it_is_asked_until_there_is_one_and_each_time_anew(desk):
    desk.venue.failures = 3
    desk.venue.may_answer.release(4)
    desk.statements.request(StatementRequest("V", 1))
    for _ in range(4):
        desk.turn()
    assert desk.problems == [("V", "OSError('no answer')")] * 3
    assert len(desk.answers) == 1
    assert [desk.venue.asked.get(timeout=WAIT_S)[0] for _ in range(4)] == [1] * 4


def test_after_the_stop_nothing_is_asked_nor_passed_on(desk):
    desk.statements.request(StatementRequest("V", 1))
    desk.venue.asked.get(timeout=WAIT_S)
    desk.statements.stop()
    desk.venue.may_answer.release()
    desk.statements.request(StatementRequest("V", 2))
    with pytest.raises(queue.Empty):
        desk.calls.get(timeout=0.2)
    assert desk.venue.asked.empty()


def test_a_venue_that_nothing_here_can_ask_is_named_so(desk):
    assert desk.statements.can_ask("V")
    assert not desk.statements.can_ask("W")
