"""Problems: each kind counted, and logged so often that nobody is flooded and nothing is hidden."""

from collections import Counter
from collections.abc import Callable

from ml4t_actor.lifecycle import Host
from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.messages import EnrichedSignal, Status
from ml4t_actor.orchestrator.log_throttle import LogThrottle

LOG_INTERVAL_S = 600  # between two lines about the same kind, where time is real

_WARNINGS = {
    Status.UNKNOWN_INSTRUMENT: "is not for a configured instrument; add a bar type for it to `bar_types`",
    Status.FUTURE_SIGNAL: "is from the future; check the clock of its source",
    Status.EXPIRED: "is older than `max_signal_age`; stamp it when it arises, or allow for more",
    Status.NO_MODEL: "finds no model; train one into `model_path`",
    Status.STALE_DATA: "comes when the last bar is too old, or no trades come; check the data feed",
    Status.BAD_FEATURES: "meets a feature that is not finite",
    Status.NOVEL_INPUT: "meets a market outside what the model was trained on",
    Status.LATE: "took longer than `inference_timeout_ms`",
}


class ProblemLog:
    """Counts problems by kind and logs each kind once, live again after ten minutes.

    Parameters
    ----------
    host : Host
        Whose log and clock; to be used on its thread.

    Attributes
    ----------
    counts : Counter of str
        How many of each kind were reported.
    """

    def __init__(self, host: Host) -> None:
        self.counts: Counter[str] = Counter()
        self._host = host
        self._throttle: LogThrottle | None = None

    def report(self, kind: str, message: str) -> None:
        """Count a problem, and log it unless its kind was logged just before."""
        self.counts[kind] += 1
        self._log(lambda line: self._host.log.warning(line), kind, message)

    def report_status(self, enriched: EnrichedSignal, error: BaseException | None) -> None:
        """Log why a signal was not answered by the model; statuses are counted elsewhere."""
        status = Status(enriched.status)
        signal = f"signal {enriched.signal_id!r} of {enriched.source!r} for {enriched.instrument_id}"
        if status is Status.ERROR:
            self._log(lambda line: self._host.log.error(line), status, f"{signal} failed: {error!r}")
        elif status in _WARNINGS:
            self._log(lambda line: self._host.log.warning(line), status, f"{signal} {_WARNINGS[status]}")

    def _log(self, write: Callable[[str], None], kind: str, message: str) -> None:
        if self._throttle is None:  # whether time is real is known once the host has started
            self._throttle = LogThrottle(LOG_INTERVAL_S * SECOND_NS if self._host.live else None)
        n = self._throttle.count(kind, self._host.now())
        if not n:
            return
        how_often = f"at most every {LOG_INTERVAL_S // 60} minutes" if self._host.live else "once"
        if n > 1:
            how_often += f"; {n:,} times since the last line"
        write(f"{message} (logged {how_often})")
