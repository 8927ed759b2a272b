"""One self-contained page for all accounts: it opens without a network."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from ml4t_actor.report.backtest_result import BacktestResult, TradedRun
from ml4t_actor.report.charts import charts, plotly_script
from ml4t_actor.report.text import score_rows, sizing_notes, utc
from ml4t_actor.report.verdict import Outcome, interval, judge, number, sharpe_ratio
from ml4t_actor.validation import Scores, Verdict

_STYLE = """
:root { --ink: #1c2530; --soft: #5b6775; --line: #dfe4ea; --paper: #f5f6f8; --mark: #1f6feb; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Liberation Sans", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 24px 64px; }
h1 { font-size: 26px; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 0 0 2px; overflow-wrap: anywhere; }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 0 0 8px; }
.soft { color: var(--soft); }
.card { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 20px 24px;
  margin-top: 20px; }
.synthetic { background: #b42318; color: #fff; border-radius: 8px; padding: 12px 20px; margin: 12px 0;
  font-weight: 700; font-size: 18px; letter-spacing: .04em; text-align: center; }
.tag { background: #b42318; color: #fff; border-radius: 4px; padding: 1px 6px; font-size: 11px;
  font-weight: 700; letter-spacing: .04em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 6px 12px 6px 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: 13px; }
td.n, th.n { text-align: right; white-space: nowrap; }
tr:last-child td { border-bottom: 0; }
.note { font-size: 13px; margin: 10px 0 0; }
td small { color: var(--soft); display: block; }
.verdict { border-left: 5px solid var(--soft); background: var(--paper); border-radius: 0 6px 6px 0;
  padding: 12px 18px; margin: 16px 0; }
.verdict.good { border-color: #1a7f37; }
.verdict.bad { border-color: #b42318; }
.verdict strong { font-size: 17px; }
.verdict ul { margin: 8px 0 0; padding-left: 20px; }
.columns { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 20px 32px;
  margin-top: 16px; }
.wide { grid-column: 1 / -1; }
.chart h3 { margin-bottom: 0; }
.chart p { font-size: 13px; margin: 0; }
.narrow td { font-size: 14px; }
.narrow td:first-child { white-space: nowrap; }
.empty { color: var(--soft); border: 1px dashed var(--line); border-radius: 6px; padding: 24px;
  text-align: center; margin-top: 8px; }
a { color: var(--mark); text-decoration: none; }
@media (max-width: 820px) { .columns { grid-template-columns: minmax(0, 1fr); } }
@media print { body { background: #fff; } .card { break-inside: avoid-page; } }
"""


def write_tearsheet(accounts: Sequence[BacktestResult], path: str | Path) -> Path:
    """Write one HTML page about all accounts, with plotly.js inside, and return where it is.

    Parameters
    ----------
    accounts : sequence of BacktestResult
        In the order of the page.
    path : path
        The file, made with its folder, replaced if it exists.

    Raises
    ------
    ImportError
        If plotly is not installed.
    ValueError
        If there is no account.
    """
    if not accounts:
        raise ValueError("a tearsheet needs at least one account, got none")
    script = plotly_script()
    sections = "\n".join(_section(i, account) for i, account in enumerate(accounts, 1))
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Did the enrichment help?</title>
<style>{_STYLE}</style>
<script>{script}</script>
</head>
<body>
<main>
<h1>Did the enrichment help?</h1>
<p class="soft">The same signals, traded at flat size and at the size that the meta-model, toxicity and regime
allow. Intervals are 95 %, by block bootstrap; what does not exclude chance is called chance.</p>
{_banner(accounts)}
{_summary(accounts)}
{sections}
</main>
</body>
</html>
"""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8", newline="\n")
    return target


def _banner(accounts: Sequence[BacktestResult]) -> str:
    made_up = sum(account.synthetic for account in accounts)
    if not made_up:
        return ""
    which = "" if made_up == len(accounts) else f" IN {made_up} OF {len(accounts)} ACCOUNTS"
    return f'<div class="synthetic">SYNTHETIC DATA{which}: A MADE-UP MARKET, NOT A REAL ONE</div>'


def _summary(accounts: Sequence[BacktestResult]) -> str:
    rows = "\n".join(_summary_row(i, account) for i, account in enumerate(accounts, 1))
    better = sum(account.test is not None and account.test.verdict is Verdict.BETTER for account in accounts)
    luck = (
        f'<p class="soft note">The model beats chance out of sample in {better} of {len(accounts)}. '
        "With many accounts some look better than chance by luck alone: about one in forty for each "
        "interval.</p>"
        if len(accounts) > 1
        else ""
    )
    return f"""<section class="card"><h3>Summary</h3>
<div class="scroll"><table>
<tr><th>Primary</th><th>Universe</th><th class="n">AUC within side</th><th class="n">Log-loss skill</th>
<th class="n">PnL flat</th><th class="n">PnL enriched</th><th>Did it help?</th></tr>
{rows}
</table></div>
{luck}</section>"""


def _summary_row(i: int, account: BacktestResult) -> str:
    tag = ' <span class="tag">SYNTHETIC</span>' if account.synthetic else ""
    shown = ", ".join(account.instruments[:3])
    more = f" and {len(account.instruments) - 3} more" if len(account.instruments) > 3 else ""
    return "<tr>" + "".join(
        (
            f'<td><a href="#account-{i}">{escape(account.primary)}</a>{tag}</td>',
            f"<td>{escape(shown) or 'none'}{more}</td>",
            *_scored(account.test),
            _pnl(account.run("flat")),
            _pnl(account.run("enriched")),
            f"<td>{escape(_sentence(judge(account).outcome))}</td>",
        )
    ) + "</tr>"  # fmt: skip


def _scored(scores: Scores | None) -> tuple[str, str]:
    if scores is None:
        return (_score("n/a", "not scored"),) * 2
    return (
        _score(number(scores.auc_within_side, ".3f"), interval(scores.auc_within_side_interval, ".3f")),
        _score(number(scores.log_loss_skill, "+.4f"), interval(scores.log_loss_skill_interval, "+.4f")),
    )


def _pnl(run: TradedRun | None) -> str:
    if run is None:
        return '<td class="n">n/a<small>not traded</small></td>'
    return f'<td class="n">{run.pnl_fraction:+.2%}<small>{run.pnl:+,.2f}</small></td>'


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _section(i: int, account: BacktestResult) -> str:
    return f"""<section class="card" id="account-{i}">
<h2>{escape(account.title)}</h2>
<p class="soft">{escape(account.primary)} on {escape(", ".join(account.instruments) or "no instrument")};
{escape(account.data_label)}</p>
{_banner([account])}
{_verdict(account)}
<div class="columns">
<div>{_facts(account)}</div>
<div>{_score_table(account)}</div>
<div class="wide">{_traded(account)}</div>
{_charts(i, account)}
</div>
</section>"""


def _verdict(account: BacktestResult) -> str:
    judgement = judge(account)
    kind = {Outcome.HELPED: " good", Outcome.HURT: " bad"}.get(judgement.outcome, "")
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in judgement.sentences)
    tag = ' <span class="tag">SYNTHETIC</span>' if account.synthetic else ""
    return (
        f'<div class="verdict{kind}">'
        f"<strong>Did it help? {escape(_sentence(judgement.outcome))}</strong>{tag}<ul>{items}</ul></div>"
    )


def _facts(account: BacktestResult) -> str:
    latency = account.latency_us()
    known = sum(account.statuses.values())
    by_count = sorted(account.statuses.items(), key=lambda item: (-item[1], item[0]))
    statuses = [f"{name} {n:,}" for name, n in by_count]
    if known < account.signals:
        statuses.append(f"without an answer {account.signals - known:,}")
    rows = [
        ("Trained on", f"{utc(account.train_start)} to {utc(account.train_end)} UTC"),
        ("Tested on", f"{utc(account.test_start)} to {utc(account.test_end)} UTC"),
        ("Costs", f"{1e4 * account.costs:.1f} bp a round trip"),
        ("Model", f"{account.model_kind}, version {account.model_version}"),
        ("Signals", f"{account.signals:,}"),
        ("By status", ", ".join(statuses) or "none"),
        (
            "Above break-even",
            f"{account.above_break_even:,} of {len(account.confidence):,} with status ok",
        ),
        (
            "Latency",
            ", ".join(f"{name} {number(us, '.1f')}" for name, us in latency.items())
            + " us, measured on this machine; varies from run to run",
        ),
    ]
    body = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in rows)
    return f'<h3>Data and signals</h3><table class="narrow">{body}</table>'


def _score_table(account: BacktestResult) -> str:
    validation = score_rows(account.validation)
    test = (
        score_rows(account.test) if account.test is not None else [("", "not scored", "")] * len(validation)
    )
    body = "".join(
        f"<tr><td>{escape(name)}</td>{_score(value, yardstick)}{_score(*of_test[1:])}</tr>"
        for (name, value, yardstick), of_test in zip(validation, test, strict=True)
    )
    return f"""<h3>Meta-model</h3><table class="narrow">
<tr><th></th><th class="n">Validation (walk-forward)</th><th class="n">Test (out of sample)</th></tr>
{body}<tr><td>Verdict</td><td>{_verdict_of(account.validation)}</td><td>{_verdict_of(account.test)}</td></tr>
</table>"""


def _verdict_of(scores: Scores | None) -> str:
    return escape(_sentence(scores.verdict)) if scores is not None else "Too few labelled signals to score."


def _score(value: str, yardstick: str) -> str:
    figure, bracket, rest = value.partition(" [")
    below = "".join(f"<small>{escape(part)}</small>" for part in (bracket.strip() + rest, yardstick) if part)
    return f'<td class="n">{escape(figure)}{below}</td>'


def _traded(account: BacktestResult) -> str:
    if not account.runs:
        return '<h3>Traded</h3><div class="empty">No run</div>'
    body = "".join(
        f"<tr><td>{escape(run.name)}</td>"
        + "".join(
            f'<td class="n">{cell}</td>'
            for cell in (
                f"{run.pnl:+,.2f}",
                f"{run.pnl_fraction:+.2%}",
                sharpe_ratio(run),
                number(run.probabilistic_sharpe, ".2f"),
                f"{run.max_drawdown:.2%}",
                f"{run.trades:,}",
                f"{run.fees:,.2f}",
            )
        )
        + "</tr>"
        for run in account.runs
    )
    sizing = account.sizing
    notes = "".join(
        f'<p class="soft note">{escape(_sentence(note))}</p>'
        for note in (sizing_notes(sizing) if sizing is not None else ())
    )
    return f"""<h3>Traded, after fees</h3><div class="scroll"><table>
<tr><th>Size</th><th class="n">PnL</th><th class="n">% of start</th><th class="n">Sharpe [95 %]</th>
<th class="n">P(Sharpe &gt; 0)</th><th class="n">Drawdown</th><th class="n">Trades</th>
<th class="n">Fees</th></tr>
{body}</table></div>
{notes}"""


def _charts(i: int, account: BacktestResult) -> str:
    return "\n".join(
        f'<div class="chart{" wide" if chart.wide else ""}"><h3>{escape(chart.title)}</h3>'
        f'<p class="soft">{escape(chart.caption)}</p>'
        f"{chart.html or '<div class=empty>Nothing to show</div>'}</div>"
        for chart in charts(account, f"account-{i}")
    )
