"""The result of a backtest as fixed-width plain text."""

import math
import textwrap
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from ml4t_actor.market_data import SECOND_NS
from ml4t_actor.report.backtest_result import BacktestResult, SizingDifference, regime_table
from ml4t_actor.report.baselines import AccountLine, accounts
from ml4t_actor.report.numbers import basis_points, interval, number, sharpe_ratio
from ml4t_actor.report.signal_fates import SignalFates, reasons
from ml4t_actor.report.verdict import assess
from ml4t_actor.validation import ReliabilityBin, Scores

WIDTH = 100
TOP_FEATURES = 8


def result_text(result: BacktestResult) -> str:
    """Return the result as ASCII text, no line longer than 100 columns, ending in "Did it help?".

    The first line says SYNTHETIC where the market is made up. Names are shown with control and other
    characters outside ASCII escaped.
    """
    verdict = assess(result)
    lines: list[str] = []
    if result.synthetic:
        lines += [" SYNTHETIC DATA: A MADE-UP MARKET, NOT A REAL ONE ".center(WIDTH, "*")]
    lines += [*_wrapped(result.title), "=" * WIDTH, *_data(result), ""]
    lines += [*_signals(result), ""]
    lines += _scores(result)
    lines += ["", *_reliability("validation", result.validation)]
    if result.test is not None:
        lines += ["", *_reliability("test", result.test)]
    lines += ["", *_features(result), "", *_fates(result), "", *_traded(result), *_accounts(result)]
    lines += ["", "Did it help?", *_wrapped(verdict.sentence, "  ")]
    for sentence in verdict.sentences:
        lines += _wrapped(sentence, "  - ", "    ")
    return "\n".join(line.rstrip() for line in lines) + "\n"


def utc(ns: int) -> str:
    """Return a time in UTC, to the minute."""
    return f"{datetime.fromtimestamp(ns // SECOND_NS, UTC):%Y-%m-%d %H:%M}"


def ascii_only(text: str) -> str:
    """Return `text` on one line, with what is not printable ASCII escaped."""
    one_line = " ".join(str(text).split())
    escaped = one_line.encode("ascii", "backslashreplace").decode("ascii")
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped)


def _wrapped(text: str, first: str = "", rest: str | None = None) -> list[str]:
    return textwrap.wrap(
        ascii_only(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=first if rest is None else rest,
    ) or [first.rstrip()]


def _named(name: str, text: str) -> list[str]:
    return _wrapped(text, f"  {name:<14}", " " * 16)


def _truncated(text: str, width: int) -> str:
    plain = ascii_only(text)
    return plain if len(plain) <= width else plain[: width - 3] + "..."


def _table(rows: Iterable[Sequence[str]], widths: Sequence[int]) -> list[str]:
    return [
        "  " + _truncated(row[0], widths[0]).ljust(widths[0])
        + "".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in rows
    ]  # fmt: skip


def _data(result: BacktestResult) -> list[str]:
    return [
        "Data",
        *_named("data", result.data_label + (" (SYNTHETIC)" if result.synthetic else "")),
        *_named("instruments", ", ".join(result.instruments) or "none"),
        *_named("primary", result.primary),
        *_named("trained on", f"{utc(result.train_start)} to {utc(result.train_end)} UTC"),
        *_named("tested on", f"{utc(result.test_start)} to {utc(result.test_end)} UTC"),
        *_named("costs", f"{1e4 * result.costs:.1f} bp a round trip"),
        *_named("model", f"{result.model_kind}, version {result.model_version}"),
    ]


def _signals(result: BacktestResult) -> list[str]:
    known = sum(result.statuses.values())
    by_count = sorted(result.statuses.items(), key=lambda item: (-item[1], item[0]))
    counts = [f"{name} {n}" for name, n in by_count]
    if known < result.signals:
        counts.append(f"without an answer {result.signals - known}")
    latency = result.latency_us()
    lines = [
        "Signals in the test period",
        *_named("signals", str(result.signals)),
        *_named("by status", ", ".join(counts) or "none"),
        *_named(
            "latency",
            ", ".join(f"{name} {number(us, '.1f')}" for name, us in latency.items())
            + " us (measured on this machine; varies from run to run)",
        ),
    ]
    n = len(result.confidence)
    if not n:
        return [*lines, *_named("confidence", "no signal has status ok")]
    return [
        *lines,
        *_named(
            "confidence",
            f"{result.passed} of {n} signals with status ok passed break-even; "
            f"highest confidence {number(result.highest_confidence, '.3f')}, middle break-even {result.break_even:.3f}",
        ),
        *_named(
            "regimes",
            ", ".join(f"{i}: {k / n:.0%} (weight {number(w, '.2f')})" for i, k, w in regime_table(result)),
        ),
    ]


def score_rows(scores: Scores) -> list[tuple[str, str, str]]:
    """Return name, value and yardstick of each score, the headline first."""
    return [
        ("rows", str(scores.n), f"worth about {number(scores.n_effective, '.0f')} independent"),
        (
            "skill on the odds",
            _with_interval(scores.odds_skill, scores.odds_skill_interval, "+.4f"),
            f"recalibrated odds 0; at least {number(scores.odds_skill_low, '+.4f')}",
        ),
        (
            "skill on the rate",
            _with_interval(scores.log_loss_skill, scores.log_loss_skill_interval, "+.4f"),
            "constant base rate 0",
        ),
        (
            "AUC within side",
            _with_interval(scores.auc_within_side, scores.auc_within_side_interval, ".3f"),
            "chance 0.500"
            if math.isnan(scores.auc_null)
            else f"by the odds alone {_with_interval(scores.auc_null, scores.auc_null_interval, '.3f')}",
        ),
        ("base rate", _with_interval(scores.base_rate, scores.base_rate_interval, ".3f"), "share that paid"),
        ("bias", _with_interval(scores.bias, scores.bias_interval, "+.3f"), "mean confidence less base rate"),
        (
            "return slope",
            _with_interval(scores.return_slope, scores.return_slope_interval, "+.2f"),
            f"realised on expected, 1 is true; error {number(scores.return_slope_error, '.2f')}",
        ),
        ("calibration", number(scores.expected_calibration_error, ".3f"), "mean gap of 10 bins, 0 is best"),
        (
            "Brier score",
            number(scores.brier, ".4f"),
            f"constant base rate {number(scores.brier_baseline, '.4f')}",
        ),
        ("accuracy", number(scores.accuracy, ".3f"), f"majority {number(scores.majority_accuracy, '.3f')}"),
    ]


def _with_interval(value: float, bounds: tuple[float, float], form: str) -> str:
    return f"{number(value, form)} {interval(bounds, form)}" if math.isfinite(value) else "n/a"


def _scores(result: BacktestResult) -> list[str]:
    lines = ["Meta-model (95 % intervals by block bootstrap)"]
    periods = (("validation, walk-forward on the training part", result.validation), ("test", result.test))
    for title, scores in periods:
        if scores is None:
            lines.append(f"  {title}: too few labelled signals to score")
            continue
        lines.append(f"  {title}:")
        lines += [f"    {name:<18}{value:<28}{yardstick}" for name, value, yardstick in score_rows(scores)]
        lines += _wrapped(f"verdict: {scores.verdict}", "    ")
    if result.fold_aucs:
        lines += _named("fold AUCs", " ".join(number(value, ".3f") for value in result.fold_aucs))
    return lines


def agrees(row: ReliabilityBin) -> bool:
    """Whether the mean prediction of a bin lies in the interval of its observed rate."""
    return row.rate_low <= row.mean_p <= row.rate_high


def _reliability(title: str, scores: Scores) -> list[str]:
    if not scores.reliability:
        return [f"Reliability, {title}: no rows"]
    return [
        f"Reliability, {title} (predicted lies in the interval of observed in "
        f"{sum(map(agrees, scores.reliability))} of {len(scores.reliability)} bins)",
        *_table(
            [
                ("", "predicted", "observed", "interval", "n"),
                *(
                    (
                        "" if agrees(row) else "off",
                        number(row.mean_p, ".3f"),
                        number(row.rate, ".3f"),
                        interval((row.rate_low, row.rate_high), ".3f"),
                        str(row.n),
                    )
                    for row in scores.reliability
                ),
            ],
            (6, 11, 11, 18, 9),
        ),
    ]


def top_features(result: BacktestResult, most: int) -> list[tuple[str, float]]:
    """Return the most important features, largest first."""
    return sorted(result.feature_importance.items(), key=lambda item: (-item[1], item[0]))[:most]


def _features(result: BacktestResult) -> list[str]:
    if not result.feature_importance:
        return ["Feature importance: none"]
    shown = top_features(result, TOP_FEATURES)
    return [
        f"Feature importance, top {len(shown)} of {len(result.feature_importance)}",
        *_table([(name, number(value, ".3f")) for name, value in shown], (40, 8)),
    ]


def _fitting(value: float, sign: str, width: int) -> str:
    cents = f"{value:{sign}.2f}"
    return cents if len(cents) <= width else f"{value:{sign}.3e}"


def _traded(result: BacktestResult) -> list[str]:
    if not result.runs:
        return ["Traded: no run"]
    rows = [("", "PnL", "% of start", "Sharpe [95 %]", "P(SR>0)", "drawdown", "trades", "fees")]
    rows += [
        (
            run.name,
            _fitting(run.pnl, "+", 12),
            f"{run.pnl_fraction:+.2%}",
            sharpe_ratio(run),
            number(run.probabilistic_sharpe, ".2f"),
            f"{run.max_drawdown:.2%}",
            str(run.trades),
            _fitting(run.fees, "", 11),
        )
        for run in result.runs
    ]
    lines = [
        "Traded, the same signals at flat and at enriched size, after fees",
        *_table(rows, (9, 13, 12, 25, 9, 10, 8, 12)),
    ]
    for note in traded_notes(result):
        lines += _wrapped(note, "  ")
    return lines


def reason_rows(fates: SignalFates) -> list[tuple[str, str, str, str, str]]:
    """Return fate, signals, outcomes known, share that paid and PnL at the flat account's risk, in text."""
    rows = [
        (
            reason.fate,
            f"{reason.signals:,}",
            f"{reason.labelled:,}",
            f"{reason.paid:.1%}" if reason.labelled else "n/a",
            f"{reason.pnl:+.2%}" if reason.labelled else "n/a",
        )
        for reason in reasons(fates)
    ]
    return [*rows, ("all", f"{len(fates):,}", f"{int(fates.labelled.sum()):,}", "", "")]


def fate_notes(fates: SignalFates) -> tuple[str, ...]:
    """Return how many signals passed, what was risked, and what the table means, in words."""
    risked = (
        "nothing was risked"
        if math.isnan(fates.mean_risk)
        else f"a trade risked {fates.mean_risk:.3%} of equity"
    )
    return (
        f"{int(fates.passed.sum()):,} of {len(fates):,} signals passed break-even (by expected return); {risked}, a "
        f"full size {fates.unit_risk:.3%} (a standard deviation over the horizon)",
        "paid and PnL by the signals' own labels, each entered alone at full size and after costs: what a reason cost, "
        "where it is positive, or saved; the sums count what could not have been traded at the same time",
    )


def _fates(result: BacktestResult) -> list[str]:
    if result.fates is None:
        return ["What became of the signals: not recorded"]
    rows = [("", "signals", "labelled", "paid", "PnL"), *reason_rows(result.fates)]
    lines = ["What became of the signals", *_table(rows, (16, 10, 10, 10, 12))]
    for note in fate_notes(result.fates):
        lines += _wrapped(note, "  ")
    return lines


def account_cells(line: AccountLine) -> tuple[str, str, str, str]:
    """Return trades, PnL, annual volatility and PnL at equal risk, in text."""
    at_risk = f"{line.at_equal_risk:+.2%}"
    if math.isfinite(line.low):
        at_risk += f" {interval((100.0 * line.low, 100.0 * line.high), '+.2f')}"
    return f"{line.trades:,}", f"{line.pnl:+.2%}", f"{line.volatility:.2%}", at_risk


def _accounts(result: BacktestResult) -> list[str]:
    lines = accounts(result)
    if not lines:
        return []
    rows = [("", "trades", "PnL", "volatility", "at flat's risk")]
    rows += [(line.name, *account_cells(line)) for line in lines]
    said = (
        "all at the volatility of flat's daily returns; the two filters, and the line by labels, end each trade as its "
        "label does and risk a full size; the volatility filter trades what costs less of its volatility than the "
        "training signals' median"
    )
    noted = [] if result.fates is None else _wrapped(said, "  ")
    return ["", "The same signals at equal risk", *_table(rows, (24, 9, 10, 12, 30)), *noted]


def traded_notes(result: BacktestResult) -> tuple[str, ...]:
    """Return what is to be said below the runs: their funding, where there was any, and how they differ."""
    paid = [f"{run.name} {run.funding:+,.2f}" for run in result.runs if run.funding]
    funding = (f"funding received less paid, within the PnL: {', '.join(paid)}",) if paid else ()
    return funding + (() if result.sizing is None else sizing_notes(result.sizing))


def sizing_notes(sizing: SizingDifference) -> tuple[str, str]:
    """Return the difference of the two runs in words, and what the intervals rest on."""
    turnover = "not known" if math.isnan(sizing.turnover) else f"{sizing.turnover:.1%} of flat"
    return (
        f"enriched less flat: {basis_points(sizing.per_day)} a day; with flat scaled to the same turnover "
        f"({turnover}, by fees): {basis_points(sizing.at_equal_turnover)} a day",
        f"Sharpe ratios are annualised over 365 days; intervals from {sizing.days} days, 95 %",
    )
