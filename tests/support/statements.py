"""Questions to a venue about an account, put at their time on a test's clock and without a thread."""

from collections.abc import Callable

import pytest

from ml4t_actor.strategy.account import live_equity, statements
from ml4t_actor.strategy.account.statements import StatementRequest, Statements


def without_threads(
    patch: pytest.MonkeyPatch, call_later: Callable[..., object], now_ns: Callable[[], int]
) -> None:
    """Have every `LiveEquity` ask by `call_later(delay_s, function, *arguments)` as long as the patch holds."""

    class VirtualStatements(Statements):
        def _start(self, request: StatementRequest, delay_s: float) -> None:
            call_later(delay_s, self._ask_until_answered, request, 1.0)

        def _ask_until_answered(self, request: StatementRequest, pause_s: float) -> None:
            if not self._stop.is_set() and not self._ask(request):
                call_later(pause_s, self._ask_until_answered, request, min(2.0 * pause_s, 30.0))

    patch.setattr(live_equity, "Statements", VirtualStatements)
    patch.setattr(statements, "time_ns", now_ns)
