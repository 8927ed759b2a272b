"""A replay from the recording to the verdict."""

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ml4t_actor.config import ML4TActorConfig
from ml4t_actor.nautilus.components import unix_nanos_to_iso8601
from ml4t_actor.recording import RecordingHeader, read_recording
from ml4t_actor.recording.frames import versions
from ml4t_actor.registry import BundleError, ModelBundle, ModelStore
from ml4t_actor.replay.comparison import Comparison, Difference, ledger_answers
from ml4t_actor.replay.engine import ReplayedActor, run
from ml4t_actor.replay.survey import Survey
from ml4t_actor.settings import FeedSettings, HealthSettings, stored_labels

_A_DAY_S = 86_400.0
# Where a difference in these fields comes from, the surest first.
_CAUSES = (
    (
        {"model_version"},
        "another model served: a change of models is missing in the recording, or was made by hand",
    ),
    (
        {"instrument_id", "signal", "strength", "ts_event"},
        "a signal in the recording is not the one that was answered",
    ),
    (
        {"volatility", "regime", "regime_weight"},
        "a bar in the recording is missing, altered, or not where it was handled; or the state of the start differs",
    ),
    (
        {"vpin", "toxicity"},
        "a trade, or the volume of a bar, is missing, altered, or not where it was handled",
    ),
    (
        {"status"},
        "bars or trades are missing, so that an instrument counted as stale or cold, or the reverse",
    ),
    (
        {
            "meta_confidence",
            "confidence_low",
            "confidence_high",
            "base_odds",
            "expected_return",
            "break_even",
        },
        "signals before it are missing or in another order (the model knows of them), or custom features have changed",
    ),
    ({"ts_init", "order"}, "the recording's frames are not in the order in which they were handled"),
    ({"answer"}, "a signal, or an answer, is missing in the recording"),
)


class ReplayError(Exception):
    """A recording that cannot be run again here; the message says what is missing."""


@dataclass(frozen=True)
class ReplayReport:
    """What came out of a replay.

    Attributes
    ----------
    header : RecordingHeader
        Of the recording.
    counts : Counter
        Frames in the recording, by kind.
    first_ns, last_ns : int
        When the first and the last frame was handled, UNIX nanoseconds.
    compared, identical : int
        Answers, and how many are the same in every field to the last bit.
    in_ledger : int
        How many of them were compared with the ledger too.
    differences : list of Difference
        The first ones.
    fields : Counter
        In how many answers each field differs.
    likely : list of str
        Where the first difference is likely to come from, the surest first.
    notes : list of str
        What else a reader should know.
    """

    header: RecordingHeader
    counts: Counter[str] = field(default_factory=Counter)
    first_ns: int = 0
    last_ns: int = 0
    compared: int = 0
    identical: int = 0
    in_ledger: int = 0
    differences: list[Difference] = field(default_factory=list)
    fields: Counter[str] = field(default_factory=Counter)
    likely: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_identical(self) -> bool:
        """Whether there was something to compare and all of it is the same."""
        return 0 < self.compared == self.identical

    def text(self) -> str:
        """Return the verdict for people, with the first differences and where they are likely to come from."""
        content = ", ".join(f"{n:,} {kind}" for kind, n in self.counts.items() if kind != "answers")
        lines = [f"session of {self.header.trader_id}.{self.header.actor_id}: {content or 'nothing'}"]
        if self.first_ns:
            lines.append(
                f"from {unix_nanos_to_iso8601(self.first_ns)} to {unix_nanos_to_iso8601(self.last_ns)}"
            )
        lines += [f"note: {note}" for note in self.notes]
        if not self.compared:
            lines.append("no answers in the recording: there is nothing to compare")
        elif self.is_identical:
            lines.append(
                f"{self.identical:,} of {self.compared:,} signals identical, to the last bit of every field"
            )
        else:
            n = self.compared - self.identical
            lines.append(f"{n:,} of {self.compared:,} signals differ")
            lines += [f"  {difference}" for difference in self.differences]
            lines.append("fields: " + ", ".join(f"{name} ({n:,})" for name, n in self.fields.most_common()))
            lines += [f"likely: {reason}" for reason in self.likely]
        if self.in_ledger:
            lines.append(f"{self.in_ledger:,} of them were compared with the ledger too")
        return "\n".join(lines)


def replay(
    recording: str | Path, *, models: str | Path | None = None, ledger: str | Path | None = None
) -> ReplayReport:
    """Run a recorded live session again in a `BacktestEngine`, and compare each answer with the one given live.

    The actor is configured as it was, and what its configuration names as custom features is imported: replay
    recordings of your own only.

    Parameters
    ----------
    recording : str or Path
        The file that the actor wrote into `tape_path`.
    models : str or Path, optional
        Folder of the models that served; by default the `model_path` of the session.
    ledger : str or Path, optional
        The session's ledger, to be compared with too.

    Raises
    ------
    RecordingError
        If the recording cannot be read, or is damaged.
    ReplayError
        If a model is missing or does not fit, or the configuration is none of this version.
    LedgerError
        If the ledger cannot be read.
    """
    header, _ = read_recording(recording)
    config = _config(header)
    survey = Survey(recording)
    store = ModelStore(config.model_path if models is None else models)
    bundles = {version: _load(store, version) for version in survey.versions}
    comparison = Comparison(None if ledger is None else ledger_answers(ledger, header))
    notes = survey.notes
    if survey.counts["signals"]:
        with tempfile.TemporaryDirectory() as folder:
            # The recording says which model serves.
            try:
                actor = ReplayedActor(_in_backtest(config, Path(folder) / "none"))
                run(recording, header, survey, actor, bundles, comparison)
            except (RuntimeError, ValueError) as e:
                raise ReplayError(f"the replay of {str(recording)!r} ended early: {e}") from e
        errors = {kind: n for kind, n in actor.counts.items() if kind.startswith("error")}
        if errors or actor.inference.last_error is not None:
            notes.append(
                f"errors in the replay: {errors}, the last one in an answer {actor.inference.last_error!r}"
            )
    comparison.finish()
    return ReplayReport(
        header=header,
        counts=survey.counts,
        first_ns=survey.first_ns,
        last_ns=survey.last_ns,
        compared=comparison.compared,
        identical=comparison.identical,
        in_ledger=comparison.in_ledger,
        differences=comparison.differences,
        fields=comparison.fields,
        likely=_likely(comparison, survey, header) if comparison.differences else [],
        notes=notes,
    )


def _config(header: RecordingHeader) -> ML4TActorConfig:
    try:
        raw = msgspec.json.decode(header.config)
        if isinstance(raw, dict) and isinstance(raw.get("labels"), dict):
            raw["labels"] = stored_labels(raw["labels"])
        config: ML4TActorConfig = ML4TActorConfig.parse(msgspec.json.encode(raw))
        return config
    except (msgspec.MsgspecError, ValueError) as e:
        raise ReplayError(
            f"the configuration in the recording is none of this version of ml4t_actor: {e}; install version "
            f"{header.versions.get('ml4t_actor')}, which wrote it"
        ) from None


def _in_backtest(config: ML4TActorConfig, no_models: Path) -> ML4TActorConfig:
    """Return the configuration without what a backtest has no part in, and with bars stamped as replayed."""
    return msgspec.structs.replace(
        config,
        model_path=str(no_models),
        retrain="off",
        retraining=msgspec.structs.replace(config.retraining, check_seconds=_A_DAY_S),
        redis_enabled=False,
        redis_required=False,
        tape_path=None,
        client_id=None,
        feed=FeedSettings(stamped_at="close", warm_up=False),
        health=HealthSettings(),
    )


def _load(store: ModelStore, version: str) -> ModelBundle:
    try:
        return store.load(version)
    except BundleError as e:
        raise ReplayError(
            f"model {version}, which served in the session, cannot be loaded from {str(store.root)!r}: {e}; name the "
            "folder that has it with --models"
        ) from None


def _likely(comparison: Comparison, survey: Survey, header: RecordingHeader) -> list[str]:
    """Return where the first difference is likely to come from, the surest first."""
    reasons = []
    if survey.missing_frames:
        reasons.append(
            f"frames are missing, or were added: there are {-survey.missing_frames:+,} against what was written"
        )
    if survey.clock_set_back:
        reasons.append(
            f"frames before the time of the one that precedes them: {survey.clock_set_back:,}; they are not in the "
            "order in which they were handled, or the machine's clock was set back"
        )
    first = comparison.differences[0]
    fields = {d.field for d in comparison.differences if d.number == first.number}
    reasons += [cause for names, cause in _CAUSES if names & fields][:1]
    here = versions()
    other = [
        f"{name} {old} (here {here.get(name)})"
        for name, old in header.versions.items()
        if here.get(name) != old
    ]
    if other:
        reasons.append(f"the session ran with {', '.join(other)}")
    return reasons
