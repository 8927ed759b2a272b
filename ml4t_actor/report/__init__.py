"""The result of a backtest and what follows from it: as text, as JSON, and as a self-contained page."""

from ml4t_actor.report.backtest_result import BacktestResult, SizingDifference, TradedRun
from ml4t_actor.report.json_export import result_json
from ml4t_actor.report.signal_fates import SignalFates
from ml4t_actor.report.tearsheet import write_tearsheet
from ml4t_actor.report.text import result_text
from ml4t_actor.report.timeline import Timeline, read_timeline, timeline_text, write_timeline
from ml4t_actor.report.verdict import Answer, BacktestVerdict, assess

__all__ = [
    "Answer",
    "BacktestResult",
    "BacktestVerdict",
    "SignalFates",
    "SizingDifference",
    "Timeline",
    "TradedRun",
    "assess",
    "read_timeline",
    "result_json",
    "result_text",
    "timeline_text",
    "write_tearsheet",
    "write_timeline",
]
