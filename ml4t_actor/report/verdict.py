"""Did it help? Sentences that follow from the numbers by rules, so that no one can read more into them."""

import math
from enum import StrEnum
from typing import NamedTuple

from ml4t_actor.report.backtest_result import BacktestResult, Estimate, SizingDifference, TradedRun
from ml4t_actor.validation import Scores, Verdict
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
    sentences = [*_model(result), *_sizing(result), *(_profit(run) for run in result.runs)]
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


def _model(result: BacktestResult) -> list[str]:
    validation, test = result.validation, result.test
    if test is None:
        return [
            "The model has no score on the test period: too few of its signals got a label.",
            _scored(validation, "In walk-forward validation on the training part"),
        ]
    sentences = [
        _scored(test, "On the test period"),
        _scored(validation, "In walk-forward validation on the training part"),
    ]
    if validation.verdict is Verdict.BETTER and test.verdict is not Verdict.BETTER:
        sentences.append("What validation promised was not seen in the test: believe the test.")
    if test.verdict is Verdict.BETTER and validation.verdict is not Verdict.BETTER:
        sentences.append("Validation does not confirm the test's better scores: they may be luck.")
    return sentences


_MODEL_CLAUSES = {
    Verdict.BETTER: "the model beats chance: it ranks signals of one side better, and its probabilities beat "
    "the base rate",
    Verdict.RANKS_BETTER: "the model ranks signals of one side better than chance, but its probabilities are "
    "no better than the base rate",
    Verdict.PROBABILITIES_BETTER: "the model's probabilities beat the base rate, but it ranks signals of one "
    "side no better than chance",
    Verdict.RANKS_WORSE: "the model ranks signals of one side WORSE than chance",
    Verdict.CHANCE: "the model cannot be told from chance",
    Verdict.NO_INTERVAL: "the model cannot be told from chance: rows are too few, or of one class",
}


def _scored(scores: Scores, where: str) -> str:
    auc, skill = scores.auc_within_side_interval, scores.log_loss_skill_interval
    clause = _MODEL_CLAUSES[scores.verdict]
    worse = skill.high < 0.0
    if worse:
        clause = clause.replace("no better than the base rate", "worse than the base rate, beyond chance")
    numbers = (
        f"AUC {number(scores.auc_within_side, '.3f')} {interval(auc, '.3f')} against 0.5, log-loss skill "
        f"{number(scores.log_loss_skill, '+.4f')} {interval(skill, '+.4f')} against 0, n = {scores.n}"
    )
    sentence = f"{where} {clause} ({numbers})."
    if worse and scores.verdict is not Verdict.RANKS_BETTER:
        sentence += " Its probabilities are worse than the base rate, beyond chance."
    return sentence


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


def number(value: float, form: str) -> str:
    """Return a number, or n/a where there is none."""
    return format(value, form) if math.isfinite(value) else "n/a"


def interval(bounds: tuple[float, ...], form: str) -> str:
    """Return an interval in brackets, or say that there is none."""
    low, high = bounds
    if not (math.isfinite(low) and math.isfinite(high)):
        return "[no interval]"
    return f"[{low:{form}}, {high:{form}}]"


def sharpe_ratio(run: TradedRun) -> str:
    """Return the Sharpe ratio with its interval."""
    # Returns that hardly vary have a huge ratio, whose decimals mean nothing.
    largest = max((abs(value) for value in run.sharpe if math.isfinite(value)), default=0.0)
    form = ".2f" if largest < 100.0 else ".0f" if largest < 1e4 else ".0e"
    return f"{number(run.sharpe.sharpe, form)} {interval(run.sharpe[1:], form)}"


def basis_points(estimate: Estimate) -> str:
    """Return an estimate of returns in basis points with its interval."""
    mean, *bounds = (1e4 * value for value in estimate)
    return f"{number(mean, '+.2f')} bp {interval(tuple(bounds), '+.2f')}"
