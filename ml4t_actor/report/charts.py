"""The charts of a tearsheet, each a fragment of HTML with a fixed id."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ml4t_actor.market_data import FloatArray, IntArray
from ml4t_actor.report.backtest_result import BacktestResult
from ml4t_actor.report.page import Html
from ml4t_actor.report.text import top_features
from ml4t_actor.validation import Scores

MOST_POINTS = 1_500
MOST_CONTEXT_POINTS = 400
COLOURS = {"flat": "#7a8699", "enriched": "#1f6feb", "validation": "#b07d12", "test": "#1f6feb"}
INK, LINE, CHANCE = "#1c2530", "#e6eaef", "#b42318"
NO_CHART = Html("")


class Chart(NamedTuple):
    """A chart: `html` is empty where there is nothing to show."""

    title: str
    caption: str
    html: Html
    wide: bool = False


def charts(result: BacktestResult, prefix: str) -> Iterator[Chart]:
    """Yield the charts of a result, with ids that begin with `prefix`."""
    yield Chart(
        "Equity", "After fees, as a percentage of the start", _equity(result, f"{prefix}-equity"), wide=True
    )
    yield Chart(
        "Reliability",
        "Of the signals given p, how many paid; on the diagonal the probabilities hold",
        _reliability(result, f"{prefix}-reliability"),
    )
    yield Chart(
        "Confidence",
        f"Signals with status ok, and the middle one of their break-evens ({result.break_even:.3f})",
        _confidence(result, f"{prefix}-confidence"),
    )
    yield Chart(
        "Toxicity and regime weight",
        "Means of neighbouring signals" if len(result.ts) > MOST_CONTEXT_POINTS else "Each signal",
        _context(result, f"{prefix}-context"),
        wide=True,
    )
    yield Chart(
        "Feature importance", "Share of each feature in the model", _features(result, f"{prefix}-features")
    )
    yield Chart("Fold AUCs", "Within side; 0.5 is chance", _folds(result, f"{prefix}-folds"))
    yield Chart(
        "Latency",
        "Enrichment time, measured on this machine, where above zero",
        _latency(result, f"{prefix}-latency"),
        wide=True,
    )


def chart_html(traces: Sequence[object], div_id: str, **layout: object) -> Html:
    """Return a chart of Plotly traces as a fragment of HTML."""
    import plotly.graph_objects as go

    axis = {"gridcolor": LINE, "zerolinecolor": LINE, "linecolor": LINE, "automargin": True}
    figure = go.Figure(traces)
    figure.update_layout(
        template="none",
        height=300,
        margin={"l": 56, "r": 16, "t": 28, "b": 44},
        font={"family": "system-ui, 'Liberation Sans', Arial, sans-serif", "size": 12, "color": INK},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.02, "yanchor": "bottom"},
        hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    figure.update_layout(**layout)
    return Html(
        figure.to_html(
            full_html=False,
            include_plotlyjs=False,
            div_id=div_id,
            config={"displaylogo": False, "displayModeBar": False, "responsive": True},
        )
    )


def times(ts: IntArray) -> NDArray[np.datetime64]:
    """Return UNIX nanoseconds as times that Plotly shows, to the second."""
    return ts.view("M8[ns]").astype("M8[s]")


def _thinned(n: int, most: int) -> IntArray:
    """Return at most `most` rows of `n`, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))


def _equity(result: BacktestResult, div_id: str) -> Html:
    import plotly.graph_objects as go

    traces = []
    for run in result.runs:
        rows = _thinned(len(run.ts), MOST_POINTS)
        traces.append(
            go.Scatter(
                x=times(run.ts[rows]),
                y=100.0 * run.equity[rows] / run.starting_equity,
                name=escape(run.name),
                mode="lines" if len(rows) > 1 else "markers",
                line={"color": COLOURS.get(run.name), "width": 2},
            )
        )
    if not traces:
        return NO_CHART
    return chart_html(
        traces,
        div_id,
        yaxis={"title": "% of start"},
        shapes=[_line(y0=100.0, y1=100.0, dash="dot")],
        showlegend=True,
    )


def _line(*, dash: str = "dash", **ends: float) -> dict[str, object]:
    """Return a straight line across the plot at a fixed x or y."""
    across = {"xref": "paper", "x0": 0, "x1": 1} if "y0" in ends else {"yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", "line": {"color": CHANCE, "width": 1.5, "dash": dash}, **across, **ends}


def _reliability(result: BacktestResult, div_id: str) -> Html:
    import plotly.graph_objects as go

    scored: list[tuple[str, Scores | None]] = [("validation", result.validation), ("test", result.test)]
    traces, bounds = [], []
    for name, scores in scored:
        if scores is None or not scores.reliability:
            continue
        mean_p, rate, low, high = (
            np.array([getattr(part, field) for part in scores.reliability])
            for field in ("mean_p", "rate", "rate_low", "rate_high")
        )
        bounds += [mean_p, low, high]
        traces.append(
            go.Scatter(
                x=mean_p,
                y=rate,
                error_y={
                    "array": high - rate,
                    "arrayminus": rate - low,
                    "width": 0,
                    "thickness": 1.2,
                },
                customdata=[part.n for part in scores.reliability],
                hovertemplate="predicted %{x:.3f}, observed %{y:.3f}, n %{customdata}",
                name=name,
                mode="markers",
                marker={
                    "color": COLOURS[name],
                    "size": 9,
                    "symbol": "diamond" if name == "test" else "circle-open",
                },
            )
        )
    if not traces:
        return NO_CHART
    seen = np.concatenate(bounds)
    seen = seen[np.isfinite(seen)]
    least = max(0.0, float(seen.min()) - 0.02) if len(seen) else 0.0
    most = min(1.0, float(seen.max()) + 0.02) if len(seen) else 1.0
    diagonal = go.Scatter(
        x=[least, most],
        y=[least, most],
        mode="lines",
        line={"color": CHANCE, "width": 1.5, "dash": "dash"},
        hoverinfo="skip",
        showlegend=False,
    )
    return chart_html(
        [diagonal, *traces],
        div_id,
        xaxis={"title": "predicted", "range": [least, most]},
        yaxis={"title": "observed", "range": [least, most]},
        showlegend=True,
    )


def _histogram(values: FloatArray, edges: FloatArray, colour: str) -> object:
    import plotly.graph_objects as go

    counts, _ = np.histogram(values, edges)
    return go.Scatter(
        x=np.repeat(edges, 2),
        y=np.concatenate(([0], np.repeat(counts, 2), [0])),
        mode="lines",
        line={"color": colour, "width": 1},
        fill="tozeroy",
        hovertemplate="%{x:.4g}: %{y} signals<extra></extra>",
    )


def _confidence(result: BacktestResult, div_id: str) -> Html:
    values = result.confidence[np.isfinite(result.confidence)]
    if not len(values):
        return NO_CHART
    low = min(float(values.min()), result.break_even)
    high = max(float(values.max()), result.break_even)
    pad = 0.02 * (high - low) or 0.01
    return chart_html(
        [_histogram(values, np.linspace(low - pad, high + pad, 51), COLOURS["enriched"])],
        div_id,
        xaxis={"title": "confidence"},
        yaxis={"title": "signals", "rangemode": "tozero"},
        shapes=[_line(x0=result.break_even, x1=result.break_even)],
        annotations=[_annotation("break-even", result.break_even)],
        showlegend=False,
    )


def _annotation(text: str, x: float) -> dict[str, object]:
    return {
        "text": text,
        "x": x,
        "y": 1.0,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"color": CHANCE, "size": 12},
    }


def _context(result: BacktestResult, div_id: str) -> Html:
    import plotly.graph_objects as go

    n = len(result.ts)
    if not n:
        return NO_CHART
    starts = _thinned(n, MOST_CONTEXT_POINTS)
    size = np.diff(np.append(starts, n))
    traces = [
        go.Scatter(
            x=times(result.ts[starts]),
            y=np.add.reduceat(column, starts) / size,
            name=name,
            mode="lines" if n > 1 else "markers",
            line={"color": colour, "width": 1.3},
        )
        for name, column, colour in (
            ("toxicity", result.toxicity, "#c2620e"),
            ("regime weight", result.regime_weight, "#1a7f37"),
        )
    ]
    return chart_html(traces, div_id, yaxis={"range": [0, 1.02]}, showlegend=True)


def _features(result: BacktestResult, div_id: str) -> Html:
    import plotly.graph_objects as go

    shown = top_features(result, 12)
    if not shown:
        return NO_CHART
    names, shares = zip(*shown, strict=True)
    bars = go.Bar(
        x=shares[::-1],
        y=[escape(name) for name in names[::-1]],
        orientation="h",
        marker={"color": COLOURS["enriched"]},
        hovertemplate="%{y}: %{x:.3f}<extra></extra>",
    )
    return chart_html([bars], div_id, xaxis={"title": "share", "rangemode": "tozero"}, bargap=0.35)


def _folds(result: BacktestResult, div_id: str) -> Html:
    import plotly.graph_objects as go

    values = np.array(result.fold_aucs, np.float64)
    if not np.isfinite(values).any():
        return NO_CHART
    reach = max(0.05, 1.2 * float(np.nanmax(np.abs(values - 0.5))))
    points = go.Scatter(
        x=[f"fold {i}" for i in range(1, len(values) + 1)],
        y=[float(value) if np.isfinite(value) else None for value in values],
        mode="markers+text",
        text=[f"{value:.3f}" if np.isfinite(value) else "" for value in values],
        textposition="top center",
        marker={"color": COLOURS["validation"], "size": 11},
        cliponaxis=False,
        hoverinfo="skip",
    )
    return chart_html(
        [points], div_id, yaxis={"range": [0.5 - reach, 0.5 + reach]}, shapes=[_line(y0=0.5, y1=0.5)]
    )


def _latency(result: BacktestResult, div_id: str) -> Html:
    us = result.latency_ns[result.latency_ns > 0] / 1e3
    if not len(us):
        return NO_CHART
    edges = np.geomspace(float(us.min()) * 0.98, float(us.max()) * 1.02, 61)
    decades = range(math.floor(math.log10(edges[0])), math.ceil(math.log10(edges[-1])) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    percentiles = {
        name: value for name, value in result.latency_us().items() if name != "max" and value > 0.0
    }
    return chart_html(
        [_histogram(us, edges, COLOURS["flat"])],
        div_id,
        height=240,
        xaxis={"title": "us, logarithmic", "type": "log", "tickvals": ticks, "tickformat": "~g"},
        yaxis={"title": "signals", "rangemode": "tozero"},
        shapes=[_line(x0=value, x1=value) for value in percentiles.values()],
        annotations=[
            _annotation(f"{name} {value:.1f}", float(np.log10(value))) for name, value in percentiles.items()
        ],
        showlegend=False,
    )
