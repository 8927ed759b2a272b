"""Bars and signals of several instruments become labelled rows, each instrument by itself."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from ml4t_actor.fan_out import fan_out
from ml4t_actor.indicators.features import FeatureFactory
from ml4t_actor.labeling.dataset import Dataset, build_dataset
from ml4t_actor.market_data import AnyArray, Bars, Signals
from ml4t_actor.settings import TrainingSettings

# Bars of all instruments together from which on worker processes spare more than their start costs.
BARS_WORTH_PROCESSES = 3_000_000


class LabellingTask(NamedTuple):
    """One instrument, see `build_dataset`; its name, if it has one, starts what an error says."""

    name: str
    bars: Bars
    signals: Signals | None
    labels: AnyArray | None
    trades: object
    settings: TrainingSettings
    feature_names: tuple[str, ...]
    custom_features: Mapping[str, FeatureFactory]


def label_instruments(
    tasks: Sequence[LabellingTask],
    *,
    parallel: str = "loky",
    n_jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Dataset]:
    """Return the dataset of each instrument.

    Parameters
    ----------
    tasks : sequence of LabellingTask
        One per instrument.
    parallel, progress
        As for `fan_out`.
    n_jobs : int, optional
        Most worker processes; the result does not depend on it. By default one, which is none beside this, unless
        there are many bars.

    Raises
    ------
    ValueError
        If an instrument has too few bars or no signals, or its input is not in order.
    """
    if n_jobs is None and sum(len(task.bars) for task in tasks) < BARS_WORTH_PROCESSES:
        n_jobs = 1
    return fan_out(_label, tasks, parallel=parallel, n_jobs=n_jobs, progress=progress)


def _label(task: LabellingTask) -> Dataset:
    with named(task.name):
        return build_dataset(
            task.bars,
            task.signals,
            task.labels,
            task.trades,
            settings=task.settings,
            feature_names=task.feature_names,
            custom=task.custom_features,
        )


@contextmanager
def named(instrument: str) -> Iterator[None]:
    """Let a `ValueError` say which instrument it is about, where that has a name."""
    try:
        yield
    except ValueError as e:
        if not instrument:
            raise
        raise ValueError(f"{instrument}: {e}") from e
