"""What the learning loop did: versions, triggers and decisions over time, and how well calibrated they were."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from textwrap import shorten

import msgspec
import numpy as np
from numpy.typing import NDArray

from ml4t_actor.ledger import Ledger, LedgerReader
from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.report.charts import chart_html, times
from ml4t_actor.report.page import Html, plotly_script, render, write_page
from ml4t_actor.validation import base_rate, log_loss

DECISIONS = ("promoted", "rejected", "retired", "failed", "swapped", "rolled_back")
WINDOW = 1_000
TEXT_ROWS = 24
MOST_POINTS = 2_000

_COLOURS = {
    "promoted": "#1a7f37",
    "rejected": "#7a8699",
    "retired": "#b42318",
    "failed": "#d9822b",
    "swapped": "#1f6feb",
    "rolled_back": "#b07d12",
}


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """One `ModelUpdate`, as the ledger keeps it.

    Attributes
    ----------
    ts : int
        When it took effect, UNIX nanoseconds.
    action, trigger, version, reason : str
        See `ModelUpdate`.
    n : int
        Signals compared on.
    champion_log_loss, challenger_log_loss, improvement, improvement_low : float
        See `ModelUpdate`.
    """

    ts: int
    action: str
    trigger: str
    version: str
    reason: str
    n: int
    champion_log_loss: float
    challenger_log_loss: float
    improvement: float
    improvement_low: float


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """Outcomes of the signals that a model answered, as they became known, and the decisions between them.

    Attributes
    ----------
    ts, start : int64 (n,)
        When each outcome was known, and when its signal was given, UNIX nanoseconds.
    signal : object (n,)
        Source and id of each signal.
    confidence, label, weight : float64 (n,)
        As served; 1 if it paid; average uniqueness.
    version : object (n,)
        Which model answered.
    decisions : tuple of Decision
        In order of time.
    """

    ts: IntArray
    start: IntArray
    signal: NDArray[np.object_]
    confidence: FloatArray
    label: FloatArray
    weight: FloatArray
    version: NDArray[np.object_]
    decisions: tuple[Decision, ...]

    def confidence_in(self, other: "Timeline") -> FloatArray:
        """Return the confidence of `other` in the same signals, NaN in those that it did not answer."""
        by_signal = dict(zip(other.signal.tolist(), other.confidence.tolist(), strict=True))
        return np.array(
            [by_signal.get(signal, math.nan) for signal in self.signal.tolist()], dtype=np.float64
        )


def read_timeline(source: str | Path | Ledger) -> Timeline:
    """Read the timeline of a ledger: a file, also one that is being written, or one in memory.

    Raises
    ------
    LedgerError
        If it cannot be read.
    """
    reader = LedgerReader(source)
    signals = reader.signals()
    answered = signals[(signals["label"] >= 0) & signals["status"].isin(["ok", "late"])]
    answered = answered.sort_values("ts_outcome", kind="stable")
    events = reader.events()
    ts, start = (
        answered[name].dt.tz_localize(None).to_numpy("M8[ns]").view(np.int64)
        for name in ("ts_outcome", "ts_event")
    )
    return Timeline(
        ts=ts,
        start=start,
        signal=(answered["source"] + "/" + answered["signal_id"]).to_numpy(object),
        confidence=answered["confidence"].to_numpy(np.float64),
        label=answered["label"].to_numpy(np.float64),
        weight=answered["weight"].to_numpy(np.float64),
        version=answered["model_version"].to_numpy(object),
        decisions=tuple(
            _decision(detail)
            for kind, detail in zip(events["kind"], events["detail"], strict=True)
            if kind in DECISIONS
        ),
    )


def _decision(detail: Mapping[str, object]) -> Decision:
    return msgspec.convert({**detail, "ts": detail["ts_event"]}, Decision)


def timeline_text(timeline: Timeline, frozen: Timeline | None = None, *, rows: int = TEXT_ROWS) -> str:
    """Return decisions and rolling calibration as two tables.

    Parameters
    ----------
    timeline : Timeline
        What to show.
    frozen : Timeline, optional
        The same signals answered by a model that stayed: its log loss, on those that it answered too, is put beside.
    rows : int
        Most rows of the second table, each of as many outcomes.
    """
    beside = None if frozen is None else timeline.confidence_in(frozen)
    counts = {action: sum(d.action == action for d in timeline.decisions) for action in DECISIONS}
    by_action = ", ".join(f"{n} {action.replace('_', ' ')}" for action, n in counts.items() if n) or "none"
    lines = [f"Decisions: {by_action}"]
    if timeline.decisions:
        lines.append(
            f"  {'time':<17} {'trigger':<13} {'decision':<11} {'serves':<16} {'n':>6} {'champion':>9} "
            f"{'challenger':>10} {'better by':>10} {'at least':>9}"
        )
    for d in timeline.decisions:
        figures = (
            f"{d.n:>6,} {d.champion_log_loss:>9.4f} {d.challenger_log_loss:>10.4f} {d.improvement:>+10.4f} "
            f"{d.improvement_low:>+9.4f}"
            if d.n
            else f"  {shorten(d.reason.rpartition('; ')[2], 60)}"
        )
        serves = short_version(d.version) or "-"
        lines.append(
            f"  {_minute(d.ts):<17} {d.trigger:<13} {d.action.replace('_', ' '):<11} {serves:<16} {figures}"
        )
    lines.append(f"Outcomes of scored signals: {len(timeline.ts):,}")
    if len(timeline.ts):
        extra = " the frozen model" if frozen is not None else ""
        lines.append(
            f"  {'until':<17} {'n':>6} {'paid':>6} {'mean p':>6} {'gap':>7} {'log loss':>9} {'base rate':>9}"
            f"{extra}  served by"
        )
    for chunk in _chunks(len(timeline.ts), rows):
        y, p, w = timeline.label[chunk], timeline.confidence[chunk], timeline.weight[chunk]
        rate = base_rate(y, w)
        mean_p = float(np.average(p, weights=w)) if w.sum() > 0.0 else math.nan
        end = int(timeline.ts[chunk][-1])
        frozen_loss = ""
        if beside is not None:
            both = np.isfinite(beside[chunk])
            frozen_loss = f" {log_loss(y[both], beside[chunk][both], w[both]):>16.4f}"
        served = ", ".join(dict.fromkeys(short_version(v) for v in timeline.version[chunk]))
        lines.append(
            f"  {_minute(end):<17} {len(y):>6,} {rate:>6.3f} {mean_p:>6.3f} {mean_p - rate:>+7.3f} "
            f"{log_loss(y, p, w):>9.4f} {log_loss(y, np.full(len(y), rate), w):>9.4f}{frozen_loss}  {served}"
        )
    return "\n".join(lines)


def write_timeline(timeline: Timeline, path: str | Path, *, title: str, note: str = "") -> Path:
    """Write a page with the rolling calibration and log loss, each decision marked, and return where it is.

    Parameters
    ----------
    timeline : Timeline
        What to show.
    path : path
        The file, made with its folder, replaced if it exists.
    title, note : str
        Above the charts.

    Raises
    ------
    ImportError
        If plotly is not installed.
    """
    page = render(
        "timeline/page",
        title=title,
        script=plotly_script(),
        note=note,
        charts=Html(
            "\n".join(render("timeline/chart", title=name, chart=chart) for name, chart in _charts(timeline))
        ),
        text=timeline_text(timeline),
    )
    return write_page(page, path)


def short_version(version: str) -> str:
    """Return the part of a version's name that tells it from the others: ``v000007`` of ``v000007-1a2b3c4d5e6f``."""
    number, dash, digest = version.partition("-")
    return number if dash and len(digest) == 12 else version


def _charts(timeline: Timeline) -> Iterator[tuple[str, Html]]:
    import plotly.graph_objects as go

    n = len(timeline.ts)
    window = min(WINDOW, n)
    if not window:
        return
    ends = np.unique(np.linspace(window, n, min(MOST_POINTS, n - window + 1)).astype(np.int64))
    w = timeline.weight
    paid = _rolling(timeline.label, w, window, ends)
    mean_p = _rolling(timeline.confidence, w, window, ends)
    p = np.clip(timeline.confidence, 1e-9, 1.0 - 1e-9)
    losses = -np.where(timeline.label > 0.5, np.log(p), np.log1p(-p))
    loss = _rolling(losses, w, window, ends)
    entropy = -(paid * np.log(np.maximum(paid, 1e-9)) + (1.0 - paid) * np.log(np.maximum(1.0 - paid, 1e-9)))
    at = times(timeline.ts[ends - 1])

    def line(y: FloatArray, name: str, colour: str) -> object:
        return go.Scatter(x=at, y=y, name=name, mode="lines", line={"color": colour, "width": 2})

    marks = [
        {
            "type": "line",
            "xref": "x",
            "yref": "paper",
            "x0": times(np.array([d.ts]))[0].item(),
            "x1": times(np.array([d.ts]))[0].item(),
            "y0": 0,
            "y1": 1,
            "line": {"color": _COLOURS[d.action], "width": 2 if d.action == "promoted" else 1, "dash": "dot"},
        }
        for d in timeline.decisions
    ]
    yield (
        f"Mean confidence and share of signals that paid, of the last {window:,} outcomes",
        chart_html(
            [line(mean_p, "confidence", "#1f6feb"), line(paid, "paid", "#1c2530")],
            "calibration",
            shapes=marks,
            height=340,
        ),
    )
    yield (
        f"Log loss less that of the window's own base rate, of the last {window:,} outcomes (below zero is skill)",
        chart_html([line(loss - entropy, "log loss", "#1f6feb")], "loss", shapes=marks, height=300),
    )
    decided = [d for d in timeline.decisions if d.n]
    if decided:
        yield (
            "What each challenger improved, with its lower bound; promoted ones are green",
            chart_html(
                [
                    go.Scatter(
                        x=times(np.array([d.ts for d in decided])),
                        y=[d.improvement for d in decided],
                        error_y={
                            "type": "data",
                            "symmetric": False,
                            "array": [0.0] * len(decided),
                            "arrayminus": [d.improvement - d.improvement_low for d in decided],
                        },
                        mode="markers",
                        marker={"color": [_COLOURS[d.action] for d in decided], "size": 9},
                        text=[escape(d.reason) for d in decided],
                        name="improvement",
                    )
                ],
                "gate",
                height=280,
            ),
        )


def _rolling(values: FloatArray, weight: FloatArray, window: int, ends: IntArray) -> FloatArray:
    """Return the weighted mean of the `window` values before each end."""
    total = np.concatenate([[0.0], np.cumsum(values * weight)])
    mass = np.concatenate([[0.0], np.cumsum(weight)])
    mean: FloatArray = (total[ends] - total[ends - window]) / np.maximum(
        mass[ends] - mass[ends - window], 1e-12
    )
    return mean


def _chunks(n: int, most: int) -> Iterator[slice]:
    edges = np.unique(np.linspace(0, n, min(most, max(1, n // 100)) + 1).astype(np.int64)).tolist()
    for first, end in pairwise(edges):
        yield slice(first, end)


def _minute(ts: int) -> str:
    return str(np.datetime64(ts, "ns"))[:16].replace("T", " ")


__all__ = ["Decision", "Timeline", "read_timeline", "short_version", "timeline_text", "write_timeline"]
