"""Publishes the signals that a CSV or a file of JSON lines holds: ``python -m ml4t_actor.publisher FILE``."""

import argparse
import csv
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import IO

from ml4t_actor.publisher.client import PASSWORD_ENV, STREAM, SignalPublisher
from ml4t_actor.publisher.signals import OPTIONAL, REQUIRED, checked_signal, shown
from ml4t_actor.streams.codec import SIGNAL_TYPE, Scalar
from ml4t_actor.streams.connection import RedisAwayError, RedisRefusedError
from ml4t_actor.streams.writer import BATCH_ENTRIES

_NUMBERS: dict[str, type[float]] = {"signal": float, "strength": float, "ts_event": int, "ts_init": int}
_PROGRESS_SECONDS = 2.0


class _Row:
    """A line of a file: its values, or why it has none."""

    def __init__(self, line: int, values: Mapping[str, object] | None, problem: str = "") -> None:
        self.line = line
        self.values = values
        self.problem = problem


def _csv_rows(file: IO[str]) -> Iterator[_Row]:
    reader = csv.DictReader(file, restkey="", restval=None)
    names = reader.fieldnames or []
    unknown = [name for name in names if name not in (*REQUIRED, *OPTIONAL)]
    if unknown or len(set(names)) != len(names):
        raise ValueError(f"the columns are {', '.join(names)}; known are {', '.join(REQUIRED + OPTIONAL)}")
    while True:
        try:
            row = next(reader, None)
        except csv.Error as e:
            yield _Row(reader.line_num, None, str(e))
            continue
        if row is None:
            return
        if "" in row:
            yield _Row(reader.line_num, None, f"{shown(row[''])} is beyond the last column")
            continue
        yield _Row(reader.line_num, {name: _number(name, text) for name, text in row.items() if text})


def _number(name: str, text: str) -> str | float:
    """Return a cell as the number that its column holds, or as it is, to be refused."""
    try:
        return _NUMBERS[name](text) if name in _NUMBERS else text
    except ValueError:
        return text


def _json_rows(file: IO[str]) -> Iterator[_Row]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as e:
            yield _Row(line, None, f"{shown(text.rstrip())} is no JSON: {e}")
            continue
        if not isinstance(values, dict):
            yield _Row(line, None, f"{shown(values)} is no JSON object")
            continue
        if values.get("type") == SIGNAL_TYPE:
            del values["type"]
        yield _Row(line, values)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ml4t_actor.publisher",
        description=f"Publish trading signals from a file. Columns: {', '.join(REQUIRED)}, and if known "
        f"{', '.join(OPTIONAL)}.",
    )
    parser.add_argument("file", help="a CSV with a header, or JSON lines; - for standard input")
    parser.add_argument(
        "--format", choices=("csv", "jsonl"), help="by default by the file's name, else jsonl"
    )
    parser.add_argument("--host", default="127.0.0.1", help="of Redis (default: %(default)s)")
    parser.add_argument("--port", type=int, default=6379, help="of Redis (default: %(default)s)")
    parser.add_argument(
        "--database", type=int, default=0, help="number of the database (default: %(default)s)"
    )
    parser.add_argument("--username", help="the account, where Redis has them")
    parser.add_argument(
        "--password-env", default=PASSWORD_ENV, help="variable with the password (default: %(default)s)"
    )
    parser.add_argument("--tls", action="store_true", help="use TLS, and verify the server's certificate")
    parser.add_argument("--ca", help="file of the certificate authority, where the system does not know it")
    parser.add_argument("--stream", default=STREAM, help="key of the stream (default: %(default)s)")
    parser.add_argument("--encoding", choices=("msgpack", "json"), default="msgpack")
    parser.add_argument("--rate", type=float, help="signals per second (default: as fast as they go)")
    parser.add_argument("--source", help="source of rows that name none")
    parser.add_argument("--strict", action="store_true", help="stop at the first bad row")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Publish a file; return 0 if every row was published, else 1, and 2 if nothing could be."""
    parser = _arguments()
    options = parser.parse_args(arguments)
    if options.rate is not None and not options.rate > 0.0:
        parser.error(f"--rate was {options.rate}, must be above 0")
    name = options.file
    kind = options.format or ("csv" if name.lower().endswith(".csv") else "jsonl")
    try:
        file: IO[str] = sys.stdin if name == "-" else open(name, encoding="utf-8", newline="")  # noqa: SIM115
        with (
            file,
            SignalPublisher(
                options.host,
                options.port,
                stream=options.stream,
                database=options.database,
                username=options.username,
                password_env=options.password_env,
                ssl=options.tls,
                ssl_ca=options.ca,
                encoding=options.encoding,
            ) as publisher,
        ):
            rows = _csv_rows(file) if kind == "csv" else _json_rows(file)
            # Who writes into a pipe wants each line sent when it is written.
            at_once = 1 if name == "-" or options.rate is not None else BATCH_ENTRIES
            return _Sender(publisher, options, at_once).run(rows)
    except KeyboardInterrupt:
        return 130
    except (OSError, ValueError, ImportError, RedisAwayError, RedisRefusedError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


class _Sender:
    """Publishes rows, and reports the progress."""

    def __init__(self, publisher: SignalPublisher, options: argparse.Namespace, at_once: int) -> None:
        self._publisher = publisher
        self._options = options
        self._at_once = at_once
        self._ready: list[dict[str, Scalar]] = []
        self._n_sent = 0
        self._n_bad = 0
        self._started_s = self._reported_s = time.monotonic()

    def run(self, rows: Iterable[_Row]) -> int:
        try:
            for row in rows:
                if not self._accept(row) and self._options.strict:
                    break
            self._flush()
        finally:
            elapsed = time.monotonic() - self._started_s
            print(
                f"published {self._n_sent:,} signals to {self._options.stream!r} in {elapsed:.1f} s; "
                f"{self._n_bad:,} bad rows",
                file=sys.stderr,
            )
        return 1 if self._n_bad else 0

    def _accept(self, row: _Row) -> bool:
        problem, values = row.problem, row.values
        if values is not None:
            if self._options.source is not None:
                values = {"source": self._options.source, **values}
            try:
                self._ready.append(checked_signal(values))
            except ValueError as e:
                problem = str(e)
        if problem:
            self._n_bad += 1
            print(f"{self._options.file}:{row.line}: {problem}", file=sys.stderr)
            return False
        if len(self._ready) >= self._at_once:
            self._flush()
        return True

    def _flush(self) -> None:
        if self._options.rate is not None:
            due_s = self._started_s + self._n_sent / self._options.rate
            time.sleep(max(0.0, due_s - time.monotonic()))
        ready = [{k: v for k, v in values.items() if k != "type"} for values in self._ready]
        self._ready = []
        self._n_sent += len(self._publisher.publish_many(ready))
        if time.monotonic() - self._reported_s >= _PROGRESS_SECONDS:
            self._reported_s = time.monotonic()
            print(f"{self._n_sent:,} published", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
