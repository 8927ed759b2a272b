"""Recording a live session, so that it can be run again."""

from collections.abc import Callable

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.feed.bar_times import stamped_at_open
from ml4t_actor.inference import InferenceLoop
from ml4t_actor.messages import EnrichedSignal, SignalData
from ml4t_actor.nautilus.components import Cache
from ml4t_actor.nautilus.model import Bar, BarType, Identifier, TradeTick
from ml4t_actor.recording import RecordingError, RecordingHeader, RecordingWriter


class SessionRecorder:
    """Records what the inference loop is given, and which model serves meanwhile.

    Parameters
    ----------
    recording : RecordingWriter
        What is written to.
    loop : InferenceLoop
        Whose model is recorded wherever it is another one, and whose present states are what the session begins with.
    now_ns : int
        The clock's time.
    """

    def __init__(self, recording: RecordingWriter, loop: InferenceLoop, now_ns: int) -> None:
        self._recording = recording
        self._loop = loop
        self._n_swaps = -1
        self._mark_model(now_ns)
        for instrument_id in loop.instruments:
            state = loop.state(instrument_id)
            if state is not None and loop.features(instrument_id).bars:
                recording.state(instrument_id, state)

    def bar(self, bar: Bar, ts_close: int, now_ns: int, historical: bool) -> None:
        """Record a bar that is about to be handled."""
        self._mark_model(now_ns)
        self._recording.bar(bar, ts_close, now_ns, historical)

    def trade(self, tick: TradeTick, ts_event: int, now_ns: int) -> None:
        """Record a trade."""
        self._recording.trade(tick, ts_event, now_ns)

    def signal(self, signal: SignalData, now_ns: int) -> None:
        """Record a signal that is about to be answered."""
        self._mark_model(now_ns)
        self._recording.signal(signal, now_ns)

    def answer(self, enriched: EnrichedSignal) -> None:
        """Record an answer."""
        self._recording.answer(enriched)

    @property
    def n_missed(self) -> int:
        """Frames that the recording lacks."""
        return self._recording.counts["missed"]

    def close(self) -> str:
        """Write what waits, and the mark of the end; return why the recording is not whole, "" if it is."""
        if self._recording.close():
            return ""
        return self._recording.incomplete or self._recording.last_error or "the disk did not take it in time"

    def _mark_model(self, now_ns: int) -> None:
        # Not by the bundle itself: one that serves again has its regimes filtered anew.
        if self._loop.n_swaps != self._n_swaps:
            self._n_swaps = self._loop.n_swaps
            bundle = self._loop.bundle
            self._recording.model("" if bundle is None else bundle.version, now_ns)


def start_recording(
    config: ML4TActorConfig,
    loop: InferenceLoop,
    cache: Cache,
    trader_id: Identifier,
    actor_id: Identifier,
    now_ns: int,
    report_problem: Callable[[str, str], None],
) -> SessionRecorder | None:
    """Return a recording in the folder `tape_path` of the config; None, and a problem, where none can be made."""
    bar_types = [BarType.from_str(bar_type) for bar_type in config.bar_types]
    header = RecordingHeader.of(
        config,
        trader_id=trader_id,
        actor_id=actor_id,
        started_ns=now_ns,
        stamped_at={
            bar_type: "open" if stamped_at_open(bar_type, config.feed.stamped_at, True) else "close"
            for bar_type in bar_types
        },
        instruments=[cache.instrument(bar_type.instrument_id) for bar_type in bar_types],
    )
    try:
        return SessionRecorder(RecordingWriter(str(config.tape_path), header), loop, now_ns)
    except RecordingError as e:
        report_problem("no tape", f"the session is not recorded: {e}")
        return None
