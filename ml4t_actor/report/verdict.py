"""Did it help? Sentences that follow from the numbers by rules, so that no one can read more into them."""

import math
from enum import StrEnum
from typing import NamedTuple

from ml4t_actor.report.backtest_result import BacktestResult, SizingDifference, TradedRun
from ml4t_actor.report.baselines import AT_RANDOM, BY_VOLATILITY, ENRICHED, FLAT, AccountLine, accounts
from ml4t_actor.report.model_words import model_sentences
from ml4t_actor.report.numbers import basis_points, interval, rounded, sharpe_ratio
from ml4t_actor.report.signal_fates import EXIT, TRADED, reasons
from ml4t_actor.validation.power import LEAST_VALUES, MeanTest


class Answer(StrEnum):
    """Whether the enrichment helped, in a word."""

    HELPED = "helped"
    HURT = "hurt"
    CANNOT_TELL = "cannot tell"


class BacktestVerdict(NamedTuple):
    """The answer, the sentence that gives it with its numbers, and the sentences behind it."""

    answer: Answer
    sentence: str
    sentences: tuple[str, ...]


def assess(result: BacktestResult) -> BacktestVerdict:
    """Say whether the enrichment helped.

    It helped, or hurt, where the mean daily difference of the enriched run to the flat one, scaled to the same
    turnover, has an interval of 95 % above, or below, zero: of accounts that choose no better than chance at most one
    in forty is said to have helped, and as many to have hurt. Otherwise it cannot be told, and the sentence says what
    sample would tell. Whether anybody made money is said besides, and decides nothing.
    """
    answer, sentence = _answer(result)
    sentences = [*model_sentences(result), *_sizing(result), *_baselines(result)]
    sentences += [_profit(run) for run in result.runs]
    if result.synthetic:
        sentences.append("All of this is on a SYNTHETIC market: it says nothing about a real one.")
    return BacktestVerdict(answer, f"{answer.capitalize()}: {sentence}.", tuple(sentences))


def made_profit(run: TradedRun) -> bool:
    """Whether a run made money beyond chance."""
    return run.pnl > 0.0 and run.sharpe.low > 0.0


def _answer(result: BacktestResult) -> tuple[Answer, str]:
    flat, enriched, sizing = result.run(FLAT), result.run(ENRICHED), result.sizing
    if flat is None or enriched is None or sizing is None:
        return Answer.CANNOT_TELL, "flat and enriched size were not both traded"
    if not flat.trades:
        return Answer.CANNOT_TELL, "the flat run did not trade, so there is nothing to compare with"
    if not enriched.trades:
        return Answer.CANNOT_TELL, _untraded(result, flat)
    test = sizing.at_equal_turnover
    in_all = _in_all(result)
    if test.direction is None:
        return Answer.CANNOT_TELL, f"{_no_interval(sizing)}; {in_all}"
    made = (
        f"against flat at equal turnover it made {basis_points(test)} a day, in {test.n} days and "
        f"{enriched.trades:,} trades"
    )
    if test.direction == 0:
        return Answer.CANNOT_TELL, f"{made}; {_sample_that_tells(test, enriched.trades)}; {in_all}"
    return Answer.HELPED if test.direction > 0 else Answer.HURT, f"{made}; {in_all}"


def _no_interval(sizing: SizingDifference) -> str:
    if sizing.days < LEAST_VALUES:
        return f"{sizing.days} days are too few, {LEAST_VALUES} the least"
    return "too few days saw a difference to flat at equal turnover"


def _untraded(result: BacktestResult, flat: TradedRun) -> str:
    """Return why nothing was traded, and what that saved or gave up."""
    stopped = (
        [] if result.fates is None else [r for r in reasons(result.fates) if r.fate not in (TRADED, EXIT)]
    )
    by = ", ".join(f"{reason.fate} {reason.signals:,}" for reason in stopped)
    what = "saved the loss" if flat.pnl < 0.0 else "gave up the gain"
    return (
        f"of {result.signals:,} signals none was traded{f' ({by})' if by else ''}, and as long as none is, no sample "
        f"tells how it chooses; not trading {what} of flat, {flat.pnl_fraction:+.2%}"
    )


def _sample_that_tells(test: MeanTest, trades: int) -> str:
    """Return how many days would tell the difference that was observed, and those at the ends of its interval."""
    if not math.isfinite(test.needed):
        return "there is no difference that a sample could tell"
    per_day = trades / test.n
    return (
        f"were that the truth, {rounded(test.needed)} such days ({rounded(test.needed * per_day)} trades) would tell "
        f"it in four of five samples, were it the further end of the interval {rounded(test.needed_least)} days, and "
        "were it none, no sample would"
    )


def _in_all(result: BacktestResult) -> str:
    lines = {line.name: line for line in accounts(result)}
    flat, enriched = lines[FLAT], lines[ENRICHED]
    at_risk = f"{enriched.at_equal_risk:+.2%} at flat's risk"
    return f"in all it returned {enriched.pnl:+.2%} ({at_risk}), flat {flat.pnl:+.2%}"


def _sizing(result: BacktestResult) -> list[str]:
    sizing = result.sizing
    if sizing is None or math.isnan(sizing.turnover):
        return []
    raw = sizing.per_day.direction
    if raw is None:
        return [f"Whether enriched sizing beats flat sizing as it is cannot be told: {_no_interval(sizing)}."]
    comparison = {
        1: "Enriched sizing made more than flat sizing, beyond chance",
        0: "Enriched sizing cannot be told from flat sizing",
        -1: "Enriched sizing made less than flat sizing, beyond chance",
    }[raw]
    return [f"{comparison}: {basis_points(sizing.per_day)} a day, at {sizing.turnover:.1%} of its turnover."]


def _baselines(result: BacktestResult) -> list[str]:
    """Return what came of ways that need no model, at the risk of the flat run."""
    lines = {line.name: line for line in accounts(result)}
    if BY_VOLATILITY not in lines:
        return []
    random = lines[AT_RANDOM]
    others = [
        f"the volatility filter {_of(lines[BY_VOLATILITY])}",
        f"as many signals chosen at random {_of(random)} "
        f"{interval((100.0 * random.low, 100.0 * random.high), '+.2f')}",
    ]
    runs = [f"{name} {_of(lines[name])}" for name in (FLAT, ENRICHED) if name in lines]
    return [f"At equal risk, all over the same days: {', '.join([*runs, *others])}."]


def _of(line: AccountLine) -> str:
    return f"{line.at_equal_risk:+.2%}" + (" (not traded)" if not line.trades else "")


def _profit(run: TradedRun) -> str:
    sharpe = f"Sharpe {sharpe_ratio(run)}"
    if not run.trades:
        return f"The {run.name} run did not trade."
    if run.pnl > 0.0:
        luck = "beyond chance" if made_profit(run) else "which cannot be told from luck"
        return f"The {run.name} run made {run.pnl_fraction:.2%} after fees, {luck} ({sharpe})."
    if run.pnl < 0.0:
        luck = ", beyond bad luck" if run.sharpe.high < 0.0 else ""
        return f"The {run.name} run lost {-run.pnl_fraction:.2%} after fees{luck} ({sharpe})."
    return f"The {run.name} run made nothing ({sharpe})."
