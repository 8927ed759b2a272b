"""What the journal remembers, in memory and in a file: across lives, kills, and a disk that fails."""

import queue
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from ml4t_actor.strategy.__main__ import main
from ml4t_actor.strategy.journal.order_journal import (
    DayRecord,
    EntryIntent,
    JournalError,
    MemoryJournal,
    OrderJournal,
    UnsettledOpening,
)
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal, read_orders
from tests.support.paths import ROOT

WAIT_S = 20.0


class EventThread:
    """Collects what is to be called on the event thread, until the test calls it."""

    def __init__(self) -> None:
        self.calls: queue.Queue[Callable[[], None]] = queue.Queue()
        self.problems: list[str] = []

    def turn(self) -> None:
        self.calls.get(timeout=WAIT_S)()


@pytest.fixture
def events() -> EventThread:
    return EventThread()


@pytest.fixture
def reopen(tmp_path: Path, events: EventThread) -> Iterator[Callable[[], SqliteJournal]]:
    """Opens the journal, and first closes the one that was open."""
    opened: list[SqliteJournal] = []

    def open_again() -> SqliteJournal:
        for journal in opened:
            assert journal.close(WAIT_S)
        opened[:] = [
            SqliteJournal(tmp_path / "a" / "orders.sqlite", events.calls.put, events.problems.append)
        ]
        return opened[0]

    yield open_again
    for journal in opened:
        journal.close(WAIT_S)


def intent(number: int = 1, **changes: object) -> EntryIntent:
    fields = EntryIntent(f"id{number}", "momentum", str(number), "BTC.X", 1, Decimal("0.10"), 1_000 + number)
    return fields._replace(**changes)


def remembers(journal: OrderJournal) -> None:
    sent: list[str] = []
    journal.begin_entry(intent(1), lambda: sent.append("1"))
    journal.begin_entry(intent(2, instrument_id="ETH.X", side=-1), lambda: sent.append("2"))
    journal.begin_entry(intent(3), lambda: sent.append("3"))
    journal.end_entry("id1")
    journal.want_exit("BTC.X")
    journal.want_exit("ETH.X")
    journal.end_exit("ETH.X")
    journal.record_day(DayRecord("A", 5, Decimal(100), False))
    journal.record_day(DayRecord("A", 5, Decimal(90), True))
    journal.record_day(DayRecord("A", 5, Decimal(80), False))
    journal.record_day(DayRecord("B", 6, Decimal("0.1"), False))
    journal.record_day(
        DayRecord("B", 6, Decimal("0.3"), False, Decimal(-8), Decimal("-0.5"), Decimal(3), 77_000)
    )
    journal.record_quantity("BTC.X", Decimal(2))
    journal.record_quantity("BTC.X", Decimal("-0.455"))


def check(journal: OrderJournal) -> None:
    assert [journal.was_entered("momentum", n) for n in "1234"] == [True, True, True, False]
    assert not journal.was_entered("other", "1")
    assert journal.open_intents() == [intent(2, instrument_id="ETH.X", side=-1), intent(3)]
    assert journal.newest_entry("BTC.X") == intent(3)
    assert journal.newest_entry("SOL.X") is None
    assert journal.exits_wanted() == ["BTC.X"]
    assert journal.own_quantity("BTC.X") == Decimal("-0.455")
    assert journal.own_quantity("ETH.X") == 0
    assert journal.day("A") == DayRecord("A", 5, Decimal(100), True)
    in_b = DayRecord("B", 6, Decimal("0.1"), False, Decimal(-8), Decimal("-0.5"), Decimal(3), 77_000)
    assert journal.day("B") == in_b
    assert {day.account for day in journal.days()} == {"A", "B"}
    assert journal.day("C") is None


def test_in_memory_it_remembers_and_calls_at_once():
    journal = MemoryJournal()
    called: list[int] = []
    journal.begin_entry(intent(9, instrument_id="SOL.Y"), lambda: called.append(1))
    journal.end_entry("id9")
    assert called == [1]
    remembers(journal)
    check(journal)


def test_a_file_remembers_across_lives(reopen):
    journal = reopen()
    remembers(journal)
    check(journal)
    check(reopen())
    check(reopen())


def test_a_new_day_replaces_an_older_one_and_not_the_reverse(reopen):
    journal = reopen()
    journal.record_day(DayRecord("A", 5, Decimal(100), True))
    journal.record_day(DayRecord("A", 6, Decimal(90), False, Decimal(7)))
    journal.record_day(DayRecord("A", 6, Decimal(80), False, Decimal("-3.5")))
    journal.record_day(DayRecord("A", 5, Decimal(1), True))
    assert reopen().day("A") == DayRecord("A", 6, Decimal(90), False, Decimal("-3.5"))


def test_an_opening_is_replaced_until_it_is_settled(reopen):
    journal = reopen()
    unsettled = UnsettledOpening(77, {"BTC": Decimal("50000.5")})
    journal.record_day(DayRecord("A", 5, Decimal(100), False, unsettled=unsettled))
    assert reopen().day("A") == DayRecord("A", 5, Decimal(100), False, unsettled=unsettled)
    for opening, settled in ((90, True), (80, True)):
        journal = reopen()
        journal.record_day(DayRecord("A", 5, Decimal(opening), not settled))
        assert reopen().day("A") == DayRecord("A", 5, Decimal(90), False)
    journal = reopen()
    journal.record_day(DayRecord("A", 5, Decimal(70), False, unsettled=unsettled))
    assert reopen().day("A") == DayRecord("A", 5, Decimal(90), False)


def test_a_file_of_the_first_version_is_taken_over(reopen, tmp_path):
    """Of before funding was recorded."""
    path = tmp_path / "a" / "orders.sqlite"
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(
            """
            CREATE TABLE entries (
                order_id TEXT PRIMARY KEY, source TEXT NOT NULL, signal_id TEXT NOT NULL, instrument_id TEXT NOT NULL,
                side INTEGER NOT NULL, quantity TEXT NOT NULL, ts INTEGER NOT NULL, ended INTEGER NOT NULL DEFAULT 0
            );
            CREATE TABLE days (
                account TEXT PRIMARY KEY, day INTEGER NOT NULL, open_equity TEXT NOT NULL, halted INTEGER NOT NULL,
                transferred TEXT NOT NULL
            ) WITHOUT ROWID;
            CREATE TABLE exits (instrument_id TEXT PRIMARY KEY) WITHOUT ROWID;
            CREATE TABLE quantities (instrument_id TEXT PRIMARY KEY, quantity TEXT NOT NULL) WITHOUT ROWID;
            PRAGMA application_id = 1296839759;
            PRAGMA user_version = 1;
            INSERT INTO entries VALUES ('id1', 'momentum', '1', 'BTC.X', 1, '0.10', 1001, 0);
            INSERT INTO days VALUES ('A', 5, '100', 1, '-7');
            INSERT INTO quantities VALUES ('BTC.X', '0.1');
            """
        )
    assert read_orders(path, 10).unsettled == {"id1"}
    for journal in (reopen(), reopen()):
        assert journal.open_intents() == [intent(1)]
        assert journal.day("A") == DayRecord("A", 5, Decimal(100), True, Decimal(-7))
        assert journal.own_quantity("BTC.X") == Decimal("0.1")
    journal.record_day(DayRecord("A", 5, Decimal(100), True, Decimal(-7), Decimal(1), Decimal(2), 3))
    assert reopen().day("A").counted_ms == 3


def test_what_follows_is_called_on_the_event_thread_when_it_is_in_the_file(reopen, events, tmp_path):
    journal = reopen()
    called: list[int] = []
    journal.begin_entry(intent(1), lambda: called.append(1))
    call = events.calls.get(timeout=WAIT_S)
    assert called == []
    # A copy of the files is what a power failure would leave.
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in journal.path.parent.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (count,) = sqlite3.connect(copy / journal.path.name).execute("SELECT count(*) FROM entries").fetchone()
    assert count == 1
    call()
    assert called == [1]


KILLED = """
import os, signal, sys
from decimal import Decimal
from ml4t_actor.strategy.journal.order_journal import EntryIntent
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal, read_orders
journal = SqliteJournal(sys.argv[1], lambda call: call(), print)
def killed(n):
    print(n, flush=True)
    if n == 50:
        os.kill(os.getpid(), signal.SIGKILL)
for n in range(1, 1000):
    journal.begin_entry(EntryIntent(f"id{n}", "s", str(n), "BTC.X", 1, Decimal(1), n), lambda n=n: killed(n))
journal.close(20.0)
"""


def test_what_was_durable_survives_a_kill(tmp_path):
    path = tmp_path / "orders.sqlite"
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert run.returncode == -signal.SIGKILL
    durable = run.stdout.split()
    assert len(durable) == 50
    journal = SqliteJournal(path, lambda call: None, print)  # the killed process's lock is gone
    assert all(journal.was_entered("s", n) for n in durable)
    assert journal.close(WAIT_S)


HOLDS = """
import sys
from ml4t_actor.strategy.journal.sqlite_journal import SqliteJournal, read_orders
journal = SqliteJournal(sys.argv[1], lambda call: call(), print)
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_process_is_refused_with_the_remedy(tmp_path):
    path = tmp_path / "orders.sqlite"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"open\n"
        with pytest.raises(JournalError, match=r"orders.sqlite is in use.*`journal_path`"):
            SqliteJournal(path, lambda call: None, print, busy_timeout_s=0.1)
        holder.kill()
    assert SqliteJournal(path, lambda call: None, print).close(WAIT_S)


def test_a_second_strategy_of_the_process_is_refused_too(reopen, events):
    journal = reopen()
    with pytest.raises(JournalError, match="is in use"):
        SqliteJournal(journal.path, events.calls.put, print, busy_timeout_s=0.1)


@pytest.mark.parametrize("content", [b"no database", None], ids=["text", "another's database"])
def test_a_file_that_is_no_journal_is_left_alone(content, tmp_path):
    path = tmp_path / "orders.sqlite"
    if content is None:
        other = sqlite3.connect(path)
        other.execute("CREATE TABLE mine (x)")
        other.commit()
        other.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="`journal_path`"):
        SqliteJournal(path, lambda call: None, print)
    assert path.read_bytes() == before


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalError, match="cannot be used"):
        SqliteJournal(tmp_path / "file" / "orders.sqlite", lambda call: None, print)


def test_while_the_disk_fails_nothing_is_durable_and_afterwards_all_is(reopen, events, monkeypatch):
    journal = reopen()
    failing = True
    write = journal._write
    monkeypatch.setattr(
        journal, "_write", lambda changes: OSError(28, "full") if failing and changes else write(changes)
    )
    called: list[int] = []
    journal.begin_entry(intent(1), lambda: called.append(1))
    journal.begin_entry(intent(2), lambda: called.append(2))
    events.turn()
    assert "nothing is entered" in events.problems[0]
    assert called == []
    failing = False
    for _ in range(3):
        events.turn()
    assert called == [1, 2]
    assert "written again" in events.problems[1]
    assert len(reopen().open_intents()) == 2


def test_a_close_says_whether_all_is_in_the_file(reopen, monkeypatch):
    journal = reopen()
    monkeypatch.setattr(journal, "_write", lambda changes: OSError(28, "full") if changes else None)
    journal.end_exit("BTC.X")
    journal.want_exit("BTC.X")
    assert not journal.close(WAIT_S)


def test_what_a_journal_holds_is_shown_and_settled_by_hand(reopen, capsys):
    journal = reopen()
    remembers(journal)
    assert main([str(journal.path)]) == 2  # in use
    assert "is in use" in capsys.readouterr().err
    assert journal.close(WAIT_S)
    assert main([str(journal.path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 5
    assert shown[0].startswith("id2  1970-01-01T00:00:00.000001002Z  sell 0.10 ETH.X, for 2 of momentum")
    assert shown[2] == "BTC.X: its position is to be closed"
    assert shown[3:] == [
        "A  1970-01-06: opened with 100.00, transferred +0.00, funding +0.000000; halted: its loss has reached the "
        "limit",
        "B  1970-01-07: opened with 0.10, transferred -8.00, funding -0.500000, unexplained +3.00, by the venue's "
        "records up to 1970-01-01T00:01:17.000000000Z",
    ]
    assert main([str(journal.path), "--settle", "id2", "--settle", "id9"]) == 2
    printed = capsys.readouterr()
    assert "id9 is no entry" in printed.err
    assert [line.split()[0] for line in printed.out.splitlines()] == ["id3", "BTC.X:", "A", "B"]
    again = reopen()
    assert again.open_intents() == [intent(3)]
    assert again.was_entered("momentum", "2")


def test_a_journal_that_is_not_there_is_not_made(tmp_path, capsys):
    assert main([str(tmp_path / "none.sqlite")]) == 2
    assert list(tmp_path.iterdir()) == []
