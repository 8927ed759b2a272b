"""How the tests themselves wait: as long as anything moves, and what they began ends however they do."""

import asyncio
import itertools
import threading

import pytest

from tests.support import waiting
from tests.support.nodes import Live
from tests.support.waiting import Patience, join, until, until_async


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr(waiting, "LOOK_EVERY_S", 0.0)


def test_a_wait_goes_on_while_anything_moves_and_ends_at_a_standstill():
    steps = itertools.count()
    assert until(lambda: next(steps) > 20, "steps", lambda: next(steps), still_s=0.001, pause_s=0.002)
    with pytest.raises(AssertionError, match=r"waited for steps: nothing has moved for 0\.01 s, at 3"):
        until(lambda: False, "steps", lambda: 3, still_s=0.01)


def test_a_wait_for_what_never_comes_ends_though_something_moves():
    steps = itertools.count()
    with pytest.raises(AssertionError, match=r"waited for it: it has not come within 0\.05 s"):
        until(lambda: False, "it", lambda: next(steps), far_s=0.05)


def test_a_wait_on_the_event_loop_lets_others_run():
    async def wait() -> bool:
        told = []
        asyncio.get_running_loop().call_later(0.01, told.append, True)
        return bool(await until_async(lambda: told, "the call"))

    assert asyncio.run(wait())


def test_a_thread_that_does_not_end_fails_the_join():
    over = threading.Event()
    thread = threading.Thread(target=over.wait, name="the one", daemon=True)
    thread.start()
    with pytest.raises(AssertionError, match=r"the one did not end within 0\.01 s"):
        join(thread, 0.01)
    over.set()
    join(thread)


class Unstarted(Live):
    """Its threads and waits, without a node."""

    def __init__(self) -> None:
        self.published: list[object] = []


def test_a_scenario_that_fails_ends_the_threads_beside_it():
    # They only end when they are told; the event loop once joined one of them and stood still for ever.
    ended: list[bool] = []

    def swap(over: threading.Event) -> None:
        ended.append(over.wait(waiting.FAR_S))

    async def scenario() -> None:
        async with Unstarted().beside(swap, swap):
            raise LookupError("the scenario failed")

    with pytest.raises(LookupError, match="the scenario failed"):
        asyncio.run(scenario())
    assert ended == [True, True]


def test_a_thread_that_calls_back_to_the_event_loop_is_not_waited_for_by_blocking_it():
    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def call_back() -> None:
            answer = asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01, "done"), loop)
            answers.append(answer.result(waiting.FAR_S))

        await Unstarted().in_thread(call_back)

    answers: list[str] = []
    asyncio.run(scenario())
    assert answers == ["done"]


def test_what_fails_in_a_thread_fails_the_scenario():
    def fail() -> None:
        raise LookupError("in the thread")

    with pytest.raises(LookupError, match="in the thread"):
        asyncio.run(Unstarted().in_thread(fail))


def test_patience_counts_from_the_last_step(monkeypatch):
    now, steps = [1_000.0], [0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    patience = Patience("it", lambda: steps[0], still_s=50.0, far_s=1e6)
    for _ in range(4):
        now[0] += 49.0
        steps[0] += 1
        patience.check()
    now[0] += 49.0
    patience.check()
    now[0] += 1.0
    with pytest.raises(AssertionError, match=r"nothing has moved for 50 s, at 4"):
        patience.check()
