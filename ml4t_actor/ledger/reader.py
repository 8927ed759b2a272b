"""The ledger as people read it: how a model did on an instrument, when, and how well calibrated it was."""

import json
import math
import os
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from ml4t_actor.ledger.rows import feature_values, stored_feature_sets
from ml4t_actor.ledger.schema import Readable, SignalRow, reading
from ml4t_actor.market_data import FloatArray

if TYPE_CHECKING:
    import pandas as pd

type Time = str | int | datetime | pd.Timestamp
type _Scored = tuple[float | None, ...]  # whether it is scored, then the values of `_SCORED`

GROUPS = ("actor", "source", "instrument_id", "side", "model_version", "status", "regime", "regime_model")
_BLOBS = ("feature_set", "features", "regime_probabilities")
_OUTCOME = ("barrier", "label", "ret", "ts_outcome", "bars", "weight")
_COLUMNS = ("actor", *(name for name in SignalRow._fields if name not in _BLOBS), *_OUTCOME)
_TIMES = {"ts_event", "ts_init", "entry_ts", "window_end_ns", "ts_outcome"}
_INTEGERS = {"side", "regime", "latency_ns", "entry_bar", "barrier", "label", "bars"}
_TEXTS = {"actor", "source", "signal_id", "instrument_id", "model_version", "status", "regime_model"}
_SCORED = ("label", "confidence", "side", "ret", "base_odds")
_IS_SCORED = "label >= 0 AND side <> 0 AND confidence IS NOT NULL AND status IN ('ok', 'late')"
_NAT = np.iinfo(np.int64).min  # what numpy stores for "not a time"


class LedgerReader:
    """Answer questions about a ledger, also while it is written, as DataFrames of pandas.

    All methods take the same filters. `version`, `instrument` and `source` are a whole name or, where there is no
    such name, the beginning of some: ``"v000007"``, ``"ETH"`` (which is also that of ``"ETHFI-USD-PERP"``).
    `start` and `end` bound `ts_event`, the first inclusive: whatever `pandas.Timestamp` takes, UTC unless it says
    otherwise, or UNIX nanoseconds.

    Parameters
    ----------
    source : str, Path or Ledger
        The file, or the ledger of this process.

    Raises
    ------
    LedgerError
        If the file is missing, no ledger, or unreadable.

    Examples
    --------
    How did model 7 do on ETH last week, and how well calibrated was it?

    >>> from ml4t_actor.ledger import Ledger, OutcomeRow, SignalRow
    >>> from ml4t_actor.settings import LedgerSettings
    >>> ledger = Ledger(None, "actor", LedgerSettings())
    >>> monday, hour = 1_750_032_000_000_000_000, 3_600_000_000_000
    >>> for i in range(100):
    ...     row = SignalRow(
    ...         "trend", f"{i}", "ETH-USD-PERP.HYPERLIQUID", 1, 1.0, monday + i * hour, monday + i * hour,
    ...         0.7 if i % 2 else 0.5, 0.1, 0.2, 0, 0.9, 0.01, "v000007-5f2c", "ok", 50_000, 0.52,
    ...     )
    ...     ledger.record_signal(row)
    ...     won = i % 10 < 6 if i % 2 else i % 4 == 0
    ...     outcome = OutcomeRow("trend", f"{i}", 0, int(won), 0.01 if won else -0.01, row.ts_event + hour, 1, 1.0)
    ...     ledger.record_outcomes([outcome])
    >>> reader = LedgerReader(ledger)
    >>> last_week = {"start": "2025-06-16", "end": "2025-06-23"}
    >>> performance = reader.performance(version="v000007", instrument="ETH", **last_week)
    >>> performance.drop(columns=["model_version", "instrument_id"]).T.round(3)
                                      0
    n                           100.000
    resolved                    100.000
    scored                      100.000
    base_rate                     0.550
    mean_confidence               0.600
    log_loss                      0.694
    log_loss_baseline             0.688
    skill                        -0.009
    auc_within_side               0.551
    brier                         0.250
    expected_calibration_error    0.050
    mean_ret                      0.001
    log_loss_odds                 0.690
    odds_skill                   -0.006
    >>> reliability = reader.reliability(version="v000007", instrument="ETH", **last_week)
    >>> reliability[["n", "mean_p", "rate", "rate_low", "rate_high"]].round(2)
        n  mean_p  rate  rate_low  rate_high
    0  50     0.5   0.5      0.37       0.63
    1  50     0.7   0.6      0.46       0.72
    """

    def __init__(self, source: str | os.PathLike[str] | Readable) -> None:
        self._source = source
        with reading(source):
            pass

    def signals(
        self,
        version: str | None = None,
        instrument: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        source: str | None = None,
        *,
        features: bool = False,
    ) -> "pd.DataFrame":
        """Return one row per signal, in order of `ts_event`, with what is known of its outcome.

        Columns are those of the table `signals`, times in UTC. With `features` there is a column ``feature_<name>``
        for each that was served to any of the rows.
        """
        import pandas as pd

        with reading(self._source) as connection:
            where, values = _where(connection, version, instrument, start, end, source)
            wanted = (*_COLUMNS, "feature_set", "features") if features else _COLUMNS
            rows = connection.execute(
                f"SELECT {', '.join(wanted)} FROM signals WHERE {where} ORDER BY ts_event, id", values
            ).fetchall()
            names_of = stored_feature_sets(connection) if features else {}
        columns = dict(zip(wanted, zip(*rows, strict=True) if rows else [()] * len(wanted), strict=True))
        frame = pd.DataFrame({name: _series(name, columns[name]) for name in _COLUMNS})
        if features:
            served = _served_features(columns["feature_set"], columns["features"], names_of)
            frame = pd.concat([frame, pd.DataFrame(served, index=frame.index)], axis=1)
        return frame

    def events(
        self, kind: str | None = None, start: Time | None = None, end: Time | None = None
    ) -> "pd.DataFrame":
        """Return one row per model event, in the order in which they were recorded; `detail` holds dicts."""
        import pandas as pd

        since, until = _span(start, end)
        query = (
            "SELECT actor, ts, kind, version, detail FROM events "
            "WHERE (? IS NULL OR kind = ?) AND ts >= ? AND ts < ? ORDER BY id"
        )
        with reading(self._source) as connection:
            rows = connection.execute(query, (kind, kind, since, until)).fetchall()
        actors, times, kinds, versions, details = zip(*rows, strict=True) if rows else [()] * 5
        return pd.DataFrame(
            {
                "actor": _series("actor", actors),
                "ts": _times(times),
                "kind": _series("actor", kinds),
                "version": _series("actor", versions),
                "detail": pd.Series([json.loads(detail) for detail in details], dtype=object),
            }
        )

    def performance(
        self,
        by: Sequence[str] = ("model_version", "instrument_id"),
        version: str | None = None,
        instrument: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        source: str | None = None,
    ) -> "pd.DataFrame":
        """Return how good the confidences were, a row per group.

        Scores are over the `scored` signals: of status ``ok`` or ``late``, scored by a model that is, with an outcome
        that is known and not unresolved, signal by signal. What cannot be computed is NaN.

        Parameters
        ----------
        by : sequence of str, default ("model_version", "instrument_id")
            Columns whose values make the groups, some of `GROUPS`; with none of them all signals are one group.
        version, instrument, start, end, source
            See the class.

        Returns
        -------
        DataFrame
            The columns of `by`; `n` signals, those `resolved` (label 0 or 1), those `scored`; `base_rate` (share that
            paid), `mean_confidence`, `log_loss` in nats, `log_loss_baseline` (of always answering the base rate, which
            only hindsight knows), `skill` (the share of it that was avoided), `auc_within_side`, `brier`,
            `expected_calibration_error`, `mean_ret` (gross log return), `log_loss_odds` (of the base odds that were
            served, over the signals that have any) and `odds_skill` (what the confidences added to them).

        Raises
        ------
        ValueError
            If `by` names something else.
        """
        import pandas as pd

        by = list(by)
        if unknown := [name for name in by if name not in GROUPS]:
            raise ValueError(f"`by` has {unknown}, must be some of {list(GROUPS)}")
        with reading(self._source) as connection:
            where, values = _where(connection, version, instrument, start, end, source)
            rows = connection.execute(
                f"SELECT {_IS_SCORED}, {', '.join((*_SCORED, *by))} FROM signals WHERE {where}", values
            ).fetchall()
        groups: dict[tuple[str | int | None, ...], list[_Scored]] = {}
        for row in rows:
            groups.setdefault(row[1 + len(_SCORED) :], []).append(row[: 1 + len(_SCORED)])
        table = [
            dict(zip(by, key, strict=True)) | _scores(groups[key])
            for key in sorted(groups, key=lambda key: [(value is None, value) for value in key])
        ]
        return pd.DataFrame(table, columns=[*by, *_scores([])])

    def reliability(
        self,
        version: str | None = None,
        instrument: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        source: str | None = None,
        *,
        n_bins: int = 10,
    ) -> "pd.DataFrame":
        """Return predicted against observed rates in bins of about equally many of the scored signals.

        Each signal counts once; the intervals are as wide as the uniqueness of all labels together makes them. The
        columns are those of `ml4t_actor.validation.ReliabilityBin`.
        """
        import pandas as pd

        from ml4t_actor.validation import ReliabilityBin, reliability_table

        with reading(self._source) as connection:
            where, values = _where(connection, version, instrument, start, end, source)
            rows = connection.execute(
                f"SELECT label, confidence, coalesce(weight, 1.0) FROM signals WHERE {where} AND {_IS_SCORED}",
                values,
            ).fetchall()
        y, p, weight = np.array(rows, dtype=np.float64).reshape(len(rows), 3).T
        table = reliability_table(y, p, n_bins=n_bins, n_effective=float(weight.sum()))
        return pd.DataFrame(
            [msgspec.structs.asdict(row) for row in table], columns=ReliabilityBin.__struct_fields__
        )


def _where(
    connection: sqlite3.Connection,
    version: str | None,
    instrument: str | None,
    start: Time | None,
    end: Time | None,
    source: str | None,
) -> tuple[str, list[str | int]]:
    since, until = _span(start, end)
    terms = ["ts_event >= ?", "ts_event < ?"]
    values: list[str | int] = [since, until]
    for column, name in (("model_version", version), ("instrument_id", instrument), ("source", source)):
        if name is None:
            continue
        exists = connection.execute(f"SELECT 1 FROM signals WHERE {column} = ? LIMIT 1", (name,)).fetchone()
        terms.append(f"{column} = ?" if exists else f"substr({column}, 1, length(?)) = ?")
        values += [name] if exists else [name, name]
    return " AND ".join(terms), values


def _span(start: Time | None, end: Time | None) -> tuple[int, int]:
    limits = np.iinfo(np.int64)
    return (
        limits.min if start is None else _nanoseconds(start),
        limits.max if end is None else _nanoseconds(end),
    )


def _nanoseconds(time: Time) -> int:
    import pandas as pd

    stamp = pd.Timestamp(time)
    if stamp is pd.NaT:
        raise ValueError(f"{time!r} is no time")
    stamp = stamp.tz_localize("UTC") if stamp.tzinfo is None else stamp
    return int(stamp.as_unit("ns").value)


def _series(name: str, values: Sequence[object]) -> "pd.Series":
    import pandas as pd

    if name in _TIMES:
        return _times(values)
    if name in _TEXTS:
        return pd.Series(values, dtype="str")
    return pd.Series(values, dtype="Int64" if name in _INTEGERS else "float64")


def _times(values: Sequence[object]) -> "pd.Series":
    import pandas as pd

    nanoseconds = np.array([_NAT if value is None else value for value in values], dtype=np.int64)
    return pd.Series(nanoseconds.view("M8[ns]")).dt.tz_localize("UTC")


def _served_features(
    sets: Sequence[int | None], blobs: Sequence[bytes | None], names_of: dict[int, list[str]]
) -> dict[str, FloatArray]:
    columns: dict[str, FloatArray] = {}
    for number in sorted({number for number in sets if number is not None}):
        names = names_of.get(number, [])
        rows = np.array([i for i, other in enumerate(sets) if other == number], dtype=np.int64)
        whole, values = feature_values([blobs[i] for i in rows], len(names))
        for name, column in zip(names, values.T, strict=True):
            columns.setdefault(f"feature_{name}", np.full(len(sets), math.nan))[rows[whole]] = column
    return columns


def _scores(rows: list[_Scored]) -> dict[str, float]:
    """Return the scores of a group of signals."""
    from ml4t_actor.validation import (
        SCORING_FLOOR,
        auc_within_side,
        base_rate,
        brier,
        expected_calibration_error,
        log_loss,
        reliability_table,
        skill,
    )

    scored = [row[1:] for row in rows if row[0]]
    y, p, side, ret, odds = np.array(scored, dtype=np.float64).reshape(len(scored), len(_SCORED)).T
    rate = base_rate(y)
    floored = np.maximum(p, SCORING_FLOOR)  # what is 0 by rule is no claim of certainty
    loss = log_loss(y, floored)
    baseline = log_loss(y, np.full(len(y), 0.0 if math.isnan(rate) else rate))
    known = ~np.isnan(odds)  # in a ledger of an earlier version they are not
    odds_loss = log_loss(y[known], np.maximum(odds[known], SCORING_FLOOR))
    return {
        "n": len(rows),
        "resolved": sum(row[1] is not None and row[1] >= 0 for row in rows),
        "scored": len(scored),
        "base_rate": rate,
        "mean_confidence": _mean(p),
        "log_loss": loss,
        "log_loss_baseline": baseline,
        "skill": skill(loss, baseline),
        "auc_within_side": auc_within_side(y, p, side).within,
        "brier": brier(y, p),
        "expected_calibration_error": expected_calibration_error(reliability_table(y, p)),
        "mean_ret": _mean(ret[~np.isnan(ret)]),
        "log_loss_odds": odds_loss,
        "odds_skill": skill(log_loss(y[known], floored[known]), odds_loss),
    }


def _mean(values: FloatArray) -> float:
    return float(values.mean()) if len(values) else math.nan
