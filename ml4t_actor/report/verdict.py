"""Did it help? Sentences that follow from the numbers by rules, so that no one can read more into them."""

import math
from enum import StrEnum
from typing import NamedTuple

from ml4t_actor.report.backtest_result import BacktestResult, SizingDifference, TradedRun
from ml4t_actor.report.model_words import model_sentences
from ml4t_actor.report.numbers import basis_points, number, sharpe_ratio
from ml4t_actor.validation import Verdict
from ml4t_actor.validation.bootstrap import MIN_BLOCKS

HARDLY_TRADED = 0.10
FEW_BLOCKS = 30


class Answer(StrEnum):
    """Whether the enrichment helped, in one line."""

    HELPED = "yes, in this test: a better model, better trades and a profit, each beyond chance"
    IN_PART = "in part: better than flat at equal turnover beyond chance, but not every test was passed"
    LESS_TRADING = "no: better than flat, but not at equal turnover"
    HURT = "no: worse than flat, beyond chance"
    NO_EVIDENCE = "no evidence that it helped"
    INACTIVE = "cannot tell: the enriched run hardly traded"
    TOO_SHORT = "cannot tell: too few days for an interval"
    NOT_COMPARED = "cannot tell: there are not two runs with trades to compare"


class BacktestVerdict(NamedTuple):
    """The answer and the sentences behind it."""

    answer: Answer
    sentences: tuple[str, ...]


def assess(result: BacktestResult) -> BacktestVerdict:
    """Say whether the enrichment helped.

    Three questions, each decided by whether a 95 % interval excludes chance: does the model beat chance out
    of sample (`Scores.verdict`), does sizing by it beat flat size (mean difference of daily returns, as it is
    and at equal turnover), and did either run make money (Sharpe ratio). An enriched run with less than a
    tenth of the flat run's turnover is called inactive: its result, good or bad, is that of not trading.
    """
    sentences = [*model_sentences(result), *_sizing(result), *(_profit(run) for run in result.runs)]
    if result.synthetic:
        sentences.append("All of this is on a SYNTHETIC market: it says nothing about a real one.")
    return BacktestVerdict(_answer(result), tuple(sentences))


def activity(result: BacktestResult) -> float:
    """Return how much the enriched run traded per unit of the flat run, by fees or else trades, or NaN."""
    flat, enriched = result.run("flat"), result.run("enriched")
    if flat is None or enriched is None or not flat.trades:
        return math.nan
    if not enriched.trades:
        return 0.0
    sizing = result.sizing
    if sizing is not None and not math.isnan(sizing.turnover):
        return sizing.turnover
    return enriched.trades / flat.trades


def made_profit(run: TradedRun) -> bool:
    """Whether a run made money beyond chance."""
    return run.pnl > 0.0 and run.sharpe.low > 0.0


def _answer(result: BacktestResult) -> Answer:
    sizing, enriched, active = result.sizing, result.run("enriched"), activity(result)
    if sizing is None or enriched is None or math.isnan(active):
        return Answer.NOT_COMPARED
    if active < HARDLY_TRADED:
        return Answer.INACTIVE
    raw, equal = sizing.per_day.direction, sizing.at_equal_turnover.direction
    if raw is None:
        return Answer.TOO_SHORT if sizing.days < MIN_BLOCKS else Answer.NO_EVIDENCE
    if equal == 1:
        model = result.test is not None and result.test.verdict is Verdict.BETTER
        return Answer.HELPED if model and raw == 1 and made_profit(enriched) else Answer.IN_PART
    if raw == 1:
        return Answer.LESS_TRADING
    return Answer.HURT if -1 in (raw, equal) else Answer.NO_EVIDENCE


def _sizing(result: BacktestResult) -> list[str]:
    sizing, active = result.sizing, activity(result)
    if sizing is None:
        return ["Flat and enriched sizing were not both traded: there is nothing to compare."]
    if math.isnan(active):
        return ["The flat run did not trade: there is nothing to compare."]
    if active < HARDLY_TRADED:
        return _inactive(result, active)
    raw, equal = sizing.per_day.direction, sizing.at_equal_turnover.direction
    if raw is None:
        why = (
            f"{sizing.days} days are too few for an interval, {MIN_BLOCKS} the least"
            if sizing.days < MIN_BLOCKS
            else "the two differ by the same amount on every day"
        )
        return [f"Whether enriched sizing beats flat sizing cannot be told: {why}."]
    comparison = {
        1: "Enriched sizing did better than flat sizing, beyond chance",
        0: "Enriched sizing cannot be told from flat sizing",
        -1: "Enriched sizing did worse than flat sizing, beyond chance",
    }[raw]
    sentences = [f"{comparison}: {basis_points(sizing.per_day)} a day."]
    if equal is None:
        sentences.append(
            "Without fees turnover is not known: trading less cannot be told from choosing better."
        )
    else:
        sentences.append(_at_equal_turnover(sizing, raw, equal, result.run("flat")))
    if sizing.days // sizing.block_days < FEW_BLOCKS:
        sentences.append(
            f"These intervals rest on {sizing.days} days only and are too narrow: be slower to believe them."
        )
    return sentences


def _at_equal_turnover(sizing: SizingDifference, raw: int, equal: int, flat: TradedRun | None) -> str:
    what = f"against flat sizing scaled to the same turnover ({sizing.turnover:.0%} of its own)"
    numbers = f"{basis_points(sizing.at_equal_turnover)} a day"
    if equal == 1:
        return f"It also chose better trades, beyond chance: {numbers} {what}."
    if equal == -1:
        return f"It chose worse trades, beyond chance: {numbers} {what}."
    if raw == 1 and sizing.turnover < 1.0 and flat is not None and flat.pnl < 0.0:
        why = "It lost less by trading less; that it chose better trades cannot be told from chance"
    else:
        why = "That it chose better trades cannot be told from chance"
    return f"{why}: {numbers} {what}."


def _inactive(result: BacktestResult, active: float) -> list[str]:
    n = len(result.confidence)
    if not n:
        why = "no signal was enriched with status ok"
    elif not result.above_break_even:
        why = (
            f"confidence never exceeded break-even ({result.break_even:.3f}); the highest was "
            f"{number(result.highest_confidence, '.3f')}"
        )
    else:
        why = (
            f"confidence exceeded break-even ({result.break_even:.3f}) on {result.above_break_even} of {n} "
            "signals"
        )
    how = "did not trade" if active == 0.0 else f"hardly traded ({active:.1%} of the flat run's turnover)"
    return [
        f"The enriched run {how}: {why}.",
        "Whatever it shows against flat sizing is inactivity, neither skill nor the lack of it.",
    ]


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
