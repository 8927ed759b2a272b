"""One self-contained page about all results: it opens without a network."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from ml4t_actor.report.backtest_result import BacktestResult, TradedRun
from ml4t_actor.report.baselines import accounts
from ml4t_actor.report.charts import charts
from ml4t_actor.report.numbers import interval, number, sharpe_ratio
from ml4t_actor.report.page import Html, plotly_script, render, write_page
from ml4t_actor.report.signal_fates import TRADED, reasons
from ml4t_actor.report.text import account_cells, fate_notes, reason_rows, score_rows, traded_notes, utc
from ml4t_actor.report.verdict import Answer, assess
from ml4t_actor.validation import Scores, Verdict

_NOTHING = Html("")


def write_tearsheet(results: Sequence[BacktestResult], path: str | Path) -> Path:
    """Write one HTML page about all results, with plotly.js inside, and return where it is.

    Parameters
    ----------
    results : sequence of BacktestResult
        In the order of the page.
    path : path
        The file, made with its folder, replaced if it exists.

    Raises
    ------
    ImportError
        If plotly is not installed.
    ValueError
        If there is no result.
    """
    if not results:
        raise ValueError("a tearsheet needs at least one result, got none")
    page = render(
        "tearsheet/page",
        script=plotly_script(),
        banner=_banner(results),
        summary=_summary(results),
        sections=_joined((_section(i, result) for i, result in enumerate(results, 1)), "\n"),
    )
    return write_page(page, path)


def _joined(fragments: Iterable[Html], separator: str = "") -> Html:
    return Html(separator.join(fragments))


def _banner(results: Sequence[BacktestResult]) -> Html:
    made_up = sum(result.synthetic for result in results)
    if not made_up:
        return _NOTHING
    which = "" if made_up == len(results) else f" IN {made_up} OF {len(results)} BACKTESTS"
    return render("tearsheet/banner", which=which)


def _synthetic_tag(result: BacktestResult) -> Html:
    return Html(f" {render('tearsheet/synthetic_tag')}") if result.synthetic else _NOTHING


def _summary(results: Sequence[BacktestResult]) -> Html:
    better = sum(result.test is not None and result.test.verdict is Verdict.BETTER for result in results)
    return render(
        "tearsheet/summary",
        rows=_joined((_summary_row(i, result) for i, result in enumerate(results, 1)), "\n"),
        luck=render("tearsheet/luck", better=better, count=len(results)) if len(results) > 1 else _NOTHING,
    )


def _summary_row(i: int, result: BacktestResult) -> Html:
    shown = ", ".join(result.instruments[:3]) or "none"
    more = f" and {len(result.instruments) - 3} more" if len(result.instruments) > 3 else ""
    auc, skill = _score_cells(result.test)
    return render(
        "tearsheet/summary_row",
        number=i,
        primary=result.primary,
        tag=_synthetic_tag(result),
        instruments=f"{shown}{more}",
        auc=auc,
        skill=skill,
        flat=_pnl_cell(result.run("flat")),
        enriched=_pnl_cell(result.run("enriched")),
        answer=assess(result).sentence,
    )


def _score_cells(scores: Scores | None) -> tuple[Html, Html]:
    if scores is None:
        return (_score_cell("n/a", "not scored"),) * 2
    return (
        _score_cell(number(scores.auc_within_side, ".3f"), interval(scores.auc_within_side_interval, ".3f")),
        _score_cell(number(scores.odds_skill, "+.4f"), interval(scores.odds_skill_interval, "+.4f"))
        if math.isfinite(scores.odds_skill)
        else _score_cell(
            number(scores.log_loss_skill, "+.4f"), interval(scores.log_loss_skill_interval, "+.4f")
        ),
    )


def _pnl_cell(run: TradedRun | None) -> Html:
    if run is None:
        return _cell("n/a", "not traded")
    return _cell(f"{run.pnl_fraction:+.2%}", f"{run.pnl:+,.2f}")


def _score_cell(value: str, yardstick: str) -> Html:
    figure, bracket, rest = value.partition(" [")
    return _cell(figure, *(note for note in (bracket.strip() + rest, yardstick) if note))


def _cell(value: str, *notes: str) -> Html:
    return render(
        "tearsheet/cell",
        value=value,
        notes=_joined(render("tearsheet/cell_note", text=note) for note in notes),
    )


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _section(i: int, result: BacktestResult) -> Html:
    return render(
        "tearsheet/section",
        number=i,
        title=result.title,
        primary=result.primary,
        instruments=", ".join(result.instruments) or "no instrument",
        data=result.data_label,
        banner=_banner([result]),
        verdict=_verdict(result),
        facts=_facts(result),
        scores=_score_table(result),
        fates=_fates(result),
        runs=_runs(result),
        accounts=_accounts(result),
        charts=_charts(i, result),
    )


def _verdict(result: BacktestResult) -> Html:
    verdict = assess(result)
    return render(
        "tearsheet/verdict",
        kind={Answer.HELPED: " good", Answer.HURT: " bad"}.get(verdict.answer, ""),
        answer=verdict.sentence,
        tag=_synthetic_tag(result),
        sentences=_joined(render("tearsheet/item", text=sentence) for sentence in verdict.sentences),
    )


def _facts(result: BacktestResult) -> Html:
    latency = result.latency_us()
    known = sum(result.statuses.values())
    by_count = sorted(result.statuses.items(), key=lambda item: (-item[1], item[0]))
    statuses = [f"{name} {n:,}" for name, n in by_count]
    if known < result.signals:
        statuses.append(f"without an answer {result.signals - known:,}")
    rows = [
        ("Trained on", f"{utc(result.train_start)} to {utc(result.train_end)} UTC"),
        ("Tested on", f"{utc(result.test_start)} to {utc(result.test_end)} UTC"),
        ("Costs", f"{1e4 * result.costs:.1f} bp a round trip"),
        ("Model", f"{result.model_kind}, version {result.model_version}"),
        ("Signals", f"{result.signals:,}"),
        ("By status", ", ".join(statuses) or "none"),
        (
            "Passed break-even",
            f"{result.passed:,} of {len(result.confidence):,} with status ok",
        ),
        (
            "Latency",
            ", ".join(f"{name} {number(us, '.1f')}" for name, us in latency.items())
            + " us, measured on this machine; varies from run to run",
        ),
    ]
    return render(
        "tearsheet/facts",
        rows=_joined(render("tearsheet/fact", name=name, value=value) for name, value in rows),
    )


def _score_table(result: BacktestResult) -> Html:
    validation = score_rows(result.validation)
    test = score_rows(result.test) if result.test is not None else [("", "not scored", "")] * len(validation)
    rows = (
        render(
            "tearsheet/score_row",
            name=name,
            validation=_score_cell(value, yardstick),
            test=_score_cell(test_value, test_yardstick),
        )
        for (name, value, yardstick), (_, test_value, test_yardstick) in zip(validation, test, strict=True)
    )
    return render(
        "tearsheet/scores",
        rows=_joined(rows),
        validation=_verdict_sentence(result.validation),
        test=_verdict_sentence(result.test),
    )


def _verdict_sentence(scores: Scores | None) -> str:
    return _sentence(scores.verdict) if scores is not None else "Too few labelled signals to score."


def _runs(result: BacktestResult) -> Html:
    if not result.runs:
        return render("tearsheet/no_run")
    return render(
        "tearsheet/runs",
        rows=_joined(map(_run_row, result.runs)),
        notes=_joined(render("tearsheet/note", text=_sentence(note)) for note in traded_notes(result)),
    )


def _run_row(run: TradedRun) -> Html:
    figures = (
        f"{run.pnl:+,.2f}",
        f"{run.pnl_fraction:+.2%}",
        sharpe_ratio(run),
        number(run.probabilistic_sharpe, ".2f"),
        f"{run.max_drawdown:.2%}",
        f"{run.trades:,}",
        f"{run.fees:,.2f}",
    )
    return render("tearsheet/run", name=run.name, cells=_joined(map(_cell, figures)))


def _fates(result: BacktestResult) -> Html:
    """Return what became of the signals as a list of bars."""
    fates = result.fates
    if fates is None:
        return _NOTHING
    found = reasons(fates)
    most = max((reason.signals for reason in found), default=1)
    rows = (
        render(
            "tearsheet/fate",
            name=reason.fate,
            meaning=reason.meaning,
            kind=TRADED if reason.fate == TRADED else "",
            width=f"{100.0 * reason.signals / most:.1f}",
            cells=_joined((_cell(signals, f"{labelled} with a label"), _cell(paid), _cell(pnl))),
        )
        for reason, (_, signals, labelled, paid, pnl) in zip(found, reason_rows(fates)[:-1], strict=True)
    )
    return render(
        "tearsheet/fates",
        rows=_joined(rows),
        notes=_joined(render("tearsheet/note", text=_sentence(note)) for note in fate_notes(fates)),
    )


def _accounts(result: BacktestResult) -> Html:
    lines = accounts(result)
    if not lines:
        return _NOTHING
    rows = (
        render("tearsheet/run", name=line.name, cells=_joined(map(_cell, account_cells(line))))
        for line in lines
    )
    return render("tearsheet/accounts", rows=_joined(rows))


def _charts(i: int, result: BacktestResult) -> Html:
    return _joined(
        (
            render(
                "tearsheet/chart",
                width=" wide" if chart.wide else "",
                title=chart.title,
                caption=chart.caption,
                chart=chart.html or render("tearsheet/no_chart"),
            )
            for chart in charts(result, f"backtest-{i}")
        ),
        "\n",
    )
