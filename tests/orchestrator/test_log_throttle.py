"""Each kind of problem is logged at first and then once in an interval, with how often it happened."""

from hypothesis import given
from hypothesis import strategies as st

from ml4t_actor.orchestrator.log_throttle import LogThrottle

happenings = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=60)


@given(happenings, st.none() | st.integers(1, 100))
def test_what_is_logged_counts_everything_and_never_comes_too_soon(steps, interval):
    throttle, now = LogThrottle(interval), 0
    logged = {"a": [], "b": []}
    happened = {"a": 0, "b": 0}
    for kind, passed in steps:
        now += passed
        happened[kind] += 1
        n = throttle.count(kind, now)
        due = not logged[kind] or (interval is not None and now - logged[kind][-1][0] >= interval)
        assert (n > 0) == due
        if n:
            logged[kind].append((now, n))
            assert sum(n for _, n in logged[kind]) == happened[kind]
