"""How well the signals of an engine's run were scored, by what became of them."""

from collections.abc import Mapping, Sequence

import numpy as np

from ml4t_actor.labeling.rows import LabelledRows, join_rows
from ml4t_actor.messages import EnrichedSignal, Status
from ml4t_actor.settings import TrainingSettings
from ml4t_actor.training.comparisons import compare_choices
from ml4t_actor.training.result import TrainingResult
from ml4t_actor.validation import Scores, Selection, block_length, evaluate


def out_of_sample(
    labelled: Mapping[str, LabelledRows],
    enriched: Sequence[EnrichedSignal],
    training: TrainingResult,
    settings: TrainingSettings,
) -> tuple[Scores, Selection | None] | None:
    """Score the confidences of the signals with status ok, and what they would choose.

    None if fewer than two of them have labels.

    Parameters
    ----------
    labelled : mapping
        Labels of all signals by instrument: `labelled_signals`.
    enriched : sequence of EnrichedSignal
        Their answers.
    training : TrainingResult
        Of the model that gave these, for the base rate.
    settings : TrainingSettings
        Costs, and the resamples of the intervals.
    """
    answer = {
        (str(e.instrument_id), e.ts_event): (e.meta_confidence, e.base_odds, e.break_even, e.expected_return)
        for e in enriched
        if e.status == Status.OK
    }
    parts: list[LabelledRows] = []
    answers: list[tuple[float, float, float, float]] = []
    for name, rows in labelled.items():
        answered = np.array([(name, ts) in answer for ts in rows.label_start.tolist()], dtype=bool)
        parts.append(rows[answered])
        answers += [answer[name, ts] for ts in parts[-1].label_start.tolist()]
    if len(answers) < 2:
        return None
    order = np.argsort(np.concatenate([part.label_start for part in parts]), kind="stable")  # as `join_rows`
    rows, (p, base_odds, break_even, expected) = join_rows(parts), np.array(answers)[order].T
    scores = evaluate(
        rows.y,
        p,
        rows.side,
        np.full(len(rows), float(training.dataset.y.mean())),
        base_odds=base_odds,
        windows=(rows.label_start, rows.label_end),
        # The learned part but for a constant, which the slope does not see.
        returns=((1e-4 * expected + settings.labels.cost) / rows.volatility, rows.ret / rows.volatility),
        block=block_length(rows.label_start, rows.label_end),
        settings=settings.validation,
    )
    return scores, compare_choices(rows, p, break_even, settings.labels.cost, settings.validation)
