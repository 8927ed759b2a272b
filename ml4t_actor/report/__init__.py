"""The honest account of a backtest: as text, as plain values for machines, and as a self-contained page."""

from ml4t_actor.report.account import Account, Estimate, SizingDifference, TradedRun
from ml4t_actor.report.judgement import Judgement, Outcome, judge
from ml4t_actor.report.plain import account_json
from ml4t_actor.report.tearsheet import write_tearsheet
from ml4t_actor.report.text import account_text
from ml4t_actor.report.timeline import Timeline, read_timeline, timeline_text, write_timeline

__all__ = [
    "Account",
    "Estimate",
    "Judgement",
    "Outcome",
    "SizingDifference",
    "Timeline",
    "TradedRun",
    "account_json",
    "account_text",
    "judge",
    "read_timeline",
    "timeline_text",
    "write_tearsheet",
    "write_timeline",
]
