"""What the model is worth, in sentences that follow from its scores by rules."""

import math

from ml4t_actor.registry.trials import TrialsSummary
from ml4t_actor.report.backtest_result import BacktestResult
from ml4t_actor.report.numbers import interval, number
from ml4t_actor.validation import Scores, Selection, Verdict
from ml4t_actor.validation.overfitting import BEYOND_CHANCE

_CLAUSES = {
    Verdict.BETTER: "the model beats chance: it ranks signals of one side better, and its probabilities beat "
    "the base rate",
    Verdict.RANKS_BETTER: "the model ranks signals of one side better than chance, but its probabilities are "
    "no better than the base rate",
    Verdict.PROBABILITIES_BETTER: "the model's probabilities beat the base rate, but it ranks signals of one "
    "side no better than chance",
    Verdict.VOLATILITY_ONLY: "the model is better than the base rate only by knowing when volatility pays the "
    "costs: to the odds of its trades it adds nothing that can be told from chance",
    Verdict.ODDS_WORSE: "the model is WORSE than the odds of its trades: what it adds to them does harm",
    Verdict.RANKS_WORSE: "the model ranks signals of one side WORSE than chance",
    Verdict.CHANCE: "the model cannot be told from chance",
    Verdict.NO_INTERVAL: "the model cannot be told from chance: rows are too few, or of one class",
}
_CLAUSES_BESIDE_ODDS = _CLAUSES | {
    Verdict.BETTER: "the model beats chance: what it adds to the odds of its trades makes its probabilities better",
    Verdict.RANKS_BETTER: "the model ranks signals of one side better than chance and than the odds would, but its "
    "probabilities are no better than the odds, as far as can be told",
}


def model_sentences(result: BacktestResult) -> list[str]:
    """Return what the scores say of the model, what it adds to a filter by volatility, and what the search for it does.

    The test period comes first; where validation and test disagree that is said.
    """
    validation, test = result.validation, result.test
    if test is None:
        sentences = [
            "The model has no score on the test period: too few of its signals got a label.",
            _scored(validation, "In walk-forward validation on the training part"),
        ]
    else:
        sentences = [
            _scored(test, "On the test period"),
            _scored(validation, "In walk-forward validation on the training part"),
        ]
        if validation.verdict is Verdict.BETTER and test.verdict is not Verdict.BETTER:
            sentences.append("What validation promised was not seen in the test: believe the test.")
        if test.verdict is Verdict.BETTER and validation.verdict is not Verdict.BETTER:
            sentences.append("Validation does not confirm the test's better scores: they may be luck.")
    if test is not None and result.selection is not None:
        sentences += [_adds(test, result.selection), *selection_sentences(result.selection)]
    if result.path_skills:
        sentences.append(_paths(result.path_skills))
    if result.trials is not None:
        sentences.append(trials_sentence(result.trials))
    return sentences


def _scored(scores: Scores, where: str) -> str:
    against_odds = not math.isnan(scores.log_loss_odds)
    skill = scores.log_loss_skill_interval
    clause = (_CLAUSES_BESIDE_ODDS if against_odds else _CLAUSES)[scores.verdict]
    worse = skill.high < 0.0
    if worse:
        clause = clause.replace("no better than the base rate", "worse than the base rate, beyond chance")
    auc = f"AUC {number(scores.auc_within_side, '.3f')} {interval(scores.auc_within_side_interval, '.3f')}"
    rate = f"{number(scores.log_loss_skill, '+.4f')} {interval(skill, '+.4f')}"
    if against_odds:
        odds = f"{number(scores.odds_skill, '+.4f')} {interval(scores.odds_skill_interval, '+.4f')}"
        numbers = (
            f"log-loss skill against the odds {odds}, against the base rate {rate}, {auc} where the odds alone would "
            f"give {number(scores.auc_null, '.3f')}, n = {scores.n}"
        )
    else:
        numbers = f"{auc} against 0.5, log-loss skill {rate} against 0, n = {scores.n}"
    sentence = f"{where} {clause} ({numbers})."
    if worse and scores.verdict is not Verdict.RANKS_BETTER:
        sentence += " Its probabilities are worse than the base rate, beyond chance."
    return sentence


def _adds(scores: Scores, selection: Selection) -> str:
    """Return in plain words what is left of the model beyond the odds and a filter by volatility."""
    low, high = selection.over_volatility_interval
    over_filter = (
        "it chooses better signals, beyond chance"
        if low > 0.0
        else "it chooses worse signals, beyond chance"
        if high < 0.0
        else "nothing that can be told from chance"
    )
    if math.isnan(scores.log_loss_odds):
        return f"In plain words: beyond a filter by volatility, {over_filter}."
    to_odds = (
        "it adds skill, beyond chance"
        if scores.odds_skill_low > 0.0
        else "it does harm, beyond chance"
        if scores.odds_skill_interval.high < 0.0
        else "it adds nothing that can be told from chance"
    )
    return (
        f"In plain words: to the odds of its trades {to_odds}; beyond a filter by volatility, {over_filter}."
    )


def selection_sentences(selection: Selection) -> list[str]:
    """Return what choosing by confidence earned beside choosing by volatility, and what acting on it would have."""
    low, high = selection.over_volatility_interval
    compared = {
        True: "more than a filter by volatility, beyond chance",
        False: "less than a filter by volatility, beyond chance",
        None: "no more than a filter by volatility, as far as can be told",
    }[True if low > 0.0 else False if high < 0.0 else None]
    difference = f"{_bp(selection.over_volatility)} {interval((1e4 * low, 1e4 * high), '+.2f')}"
    low, high = selection.over_random_interval
    at_random = f"{_bp(selection.over_random)} {interval((1e4 * low, 1e4 * high), '+.2f')} over random choice"
    chosen = (
        f"The most confident {selection.share:.0%} of the test's signals earned {_bp(selection.net_confidence)} each "
        f"after costs, as many of the highest volatility {_bp(selection.net_volatility)}, and as many chosen at random "
        f"{_bp(selection.net_all)}: confidence chose {compared} ({difference}; {at_random})."
    )
    if not selection.above_break_even:
        return [chosen, f"No confidence was above its signal's own break-even, of {selection.n} signals."]
    return [
        chosen,
        f"By confidence, above their own break-even were {selection.above_break_even} of {selection.n} signals: "
        f"{selection.precision:.1%} of them paid, {number(100.0 * selection.recall, '.1f')} % of all that paid; "
        f"profit factor {number(selection.profit_factor, '.2f')}, of all {number(selection.profit_factor_all, '.2f')}.",
    ]


def trials_sentence(trials: TrialsSummary) -> str:
    """Return how many configurations were tried on the training data, and what is left of this one for it."""
    tried = (
        "This is the only configuration that was tried on the training data"
        if trials.n_trials == 1
        else f"{trials.n_trials} configurations were tried on the training data, by skill this is number {trials.rank}"
    )
    if math.isnan(trials.deflated_probability):
        return f"{tried}; its most confident signals have no Sharpe ratio to deflate."
    luck = "more than" if trials.deflated_probability > BEYOND_CHANCE else "not more than"
    of_many = " of the best of so many" if trials.n_trials > 1 else ""
    sentence = (
        f"{tried}; the Sharpe ratio of its most confident signals is {luck} luck{of_many} (deflated: "
        f"{trials.deflated_probability:.2f} that it is)"
    )
    if not math.isnan(trials.overfitting):
        sentence += f", and choosing among them by it overfits with probability {trials.overfitting:.2f}"
    return f"{sentence}."


def _paths(skills: tuple[float, ...]) -> str:
    return (
        f"Along {len(skills)} combinatorial purged paths through the training part its skill against the odds was "
        f"{min(skills):+.4f} to {max(skills):+.4f}, above zero on {sum(skill > 0.0 for skill in skills)}."
    )


def _bp(value: float) -> str:
    return f"{number(1e4 * value, '+.2f')} bp"
