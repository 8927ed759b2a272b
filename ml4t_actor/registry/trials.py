"""A register of every configuration that was tried on a data set, so that the best of many is not taken for good."""

import hashlib
import math
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from ml4t_actor.market_data import AnyArray, FloatArray
from ml4t_actor.registry.json_values import plain_json
from ml4t_actor.validation import (
    DeflatedSharpe,
    backtest_overfitting,
    deflated_sharpe,
)

TRIALS_FILE = "trials.sqlite"
PERIODS = 200
MOST_TRIALS_PER_DATA_SET = 500
MOST_DATA_SETS = 100
_BUSY_TIMEOUT_S = 30.0
_LEAST_PERIODS = 20
_MOST_COMPARED = 50  # by halves: each of 70 pairs takes the ratio of all
_BLOCKS = 8

_SCHEMA = """
CREATE TABLE IF NOT EXISTS data_sets (data TEXT PRIMARY KEY, tried INTEGER NOT NULL, last_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS trials (
    data TEXT NOT NULL, configuration TEXT NOT NULL, last_ns INTEGER NOT NULL, odds_skill REAL, returns BLOB NOT NULL,
    PRIMARY KEY (data, configuration)
) WITHOUT ROWID;
"""


class Trial(NamedTuple):
    """One configuration, tried on one data set.

    Attributes
    ----------
    data, configuration : str
        Digests: see `fingerprint` and `configuration_digest`.
    odds_skill : float
        The headline of its scores: skill against the odds, or where they are not known against the base rate; NaN if
        there is none.
    returns : float64 (PERIODS,)
        What its choice of signals earned in each of as many equal periods of the data; NaN where it was not tested.
    """

    data: str
    configuration: str
    odds_skill: float
    returns: FloatArray


class TrialsSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one result is worth among all that were tried on its data.

    Attributes
    ----------
    n_trials : int
        Configurations tried on the same bars and signals, this one included; the same one twice counts once.
    rank : int
        Place of this one's headline among those known, 1 the best.
    sharpe, expected_best, deflated_probability : float
        See `DeflatedSharpe`: of this one's returns per period; NaN where they have no ratio.
    overfitting : float
        Probability of backtest overfitting of choosing among the newest 50 by Sharpe ratio; NaN of fewer than two.
    """

    n_trials: int
    rank: int
    sharpe: float
    expected_best: float
    deflated_probability: float
    overfitting: float


class TrialRegister:
    """The file of a models folder that keeps what was tried: one row per data set and configuration.

    Several processes may write at once. It does not grow without bound: of each data set the newest 500 configurations
    are kept with their returns, of the newest 100 data sets. What is dropped of a data set goes on counting.

    Parameters
    ----------
    root : path
        The models folder, made with the first trial.
    """

    def __init__(self, root: str | Path) -> None:
        self.path = Path(root) / TRIALS_FILE

    def add(self, trial: Trial, at_ns: int) -> None:
        """Write a trial down, in place of an earlier one of the same configuration.

        Raises
        ------
        OSError
            If the folder cannot be made.
        sqlite3.Error
            If the file is locked for more than half a minute, is none of ours, or cannot be written.
        ValueError
            If the returns are not of `PERIODS` periods.
        """
        if trial.returns.shape != (PERIODS,):
            raise ValueError(f"`returns` must be of {PERIODS} periods, their shape was {trial.returns.shape}")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as connection:
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            _write(connection, trial, at_ns)
            _trim(connection, trial.data)
            connection.execute("COMMIT")

    def summary(self, data: str, configuration: str) -> TrialsSummary | None:
        """Return what one trial is worth among all on its data; None if it is not known here.

        Raises
        ------
        sqlite3.Error
            As `add`.
        """
        if not self.path.exists():
            return None
        with closing(self._connect()) as connection:
            counted = connection.execute("SELECT tried FROM data_sets WHERE data = ?", (data,)).fetchone()
            known = connection.execute(
                "SELECT configuration, odds_skill, returns FROM trials WHERE data = ?"
                " ORDER BY last_ns DESC, configuration",
                (data,),
            ).fetchall()
        trials = {
            name: Trial(data, name, math.nan if skill is None else skill, np.frombuffer(blob, "<f8"))
            for name, skill, blob in known
        }
        if counted is None or configuration not in trials:
            return None
        return _summary(trials, configuration, counted[0])

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None)


def _write(connection: sqlite3.Connection, trial: Trial, at_ns: int) -> None:
    key = (trial.data, trial.configuration)
    is_new = not connection.execute(
        "SELECT 1 FROM trials WHERE data = ? AND configuration = ?", key
    ).fetchone()
    connection.execute(
        "INSERT INTO data_sets VALUES (?, ?, ?)"
        " ON CONFLICT (data) DO UPDATE SET tried = tried + excluded.tried, last_ns = excluded.last_ns",
        (trial.data, int(is_new), at_ns),
    )
    skill = trial.odds_skill if math.isfinite(trial.odds_skill) else None
    connection.execute(
        "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?)",
        (*key, at_ns, skill, trial.returns.astype("<f8").tobytes()),
    )


def _trim(connection: sqlite3.Connection, data: str) -> None:
    connection.execute(
        "DELETE FROM trials WHERE data = ? AND configuration NOT IN"
        " (SELECT configuration FROM trials WHERE data = ? ORDER BY last_ns DESC, configuration LIMIT ?)",
        (data, data, MOST_TRIALS_PER_DATA_SET),
    )
    connection.execute(
        "DELETE FROM data_sets WHERE data NOT IN (SELECT data FROM data_sets ORDER BY last_ns DESC, data LIMIT ?)",
        (MOST_DATA_SETS,),
    )
    connection.execute("DELETE FROM trials WHERE data NOT IN (SELECT data FROM data_sets)")


def _summary(trials: Mapping[str, Trial], configuration: str, tried: int) -> TrialsSummary:
    """Return the summary of one of the trials, which are in order of time, newest first."""
    # Over the periods in which all were tested: label settings move the first test row a little.
    tested = np.isfinite(np.array([trial.returns for trial in trials.values()])).all(axis=0)
    traded = {
        name: trial.returns[tested]
        for name, trial in trials.items()
        if tested.sum() >= _LEAST_PERIODS and np.ptp(trial.returns[tested]) > 0.0
    }
    deflated = DeflatedSharpe(math.nan, math.nan, math.nan, tried)
    if (own := traded.get(configuration)) is not None:
        ratios = [float(returns.mean() / returns.std()) for returns in traded.values()]
        deflated = deflated_sharpe(own, ratios, tried)
    newest = [returns for returns, _ in zip(traded.values(), range(_MOST_COMPARED), strict=False)]
    return TrialsSummary(
        n_trials=tried,
        rank=1 + sum(trial.odds_skill > trials[configuration].odds_skill for trial in trials.values()),
        sharpe=deflated.sharpe,
        expected_best=deflated.expected_best,
        deflated_probability=deflated.probability,
        overfitting=backtest_overfitting(np.array(newest), _BLOCKS).probability
        if len(newest) > 1
        else math.nan,
    )


def fingerprint(columns: Iterable[AnyArray]) -> str:
    """Return 16 hex digits of the contents, types and order of arrays: of the bars and signals of a data set."""
    digest = hashlib.sha256()
    for column in columns:
        digest.update(f"{column.dtype.str} {column.shape} ".encode())
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]


def configuration_digest(configuration: Mapping[str, object]) -> str:
    """Return 16 hex digits of everything that a training was set to, whatever the order of its names.

    Raises
    ------
    TypeError
        If something in it has no JSON counterpart.
    """
    plain = plain_json(configuration, "configuration")
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()[:16]
