"""The training process: ``python -m ml4t_actor.training.child FOLDER``, started by `RetrainWorker`."""

import contextlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path


def main() -> None:
    """Lower the priority before anything heavy is imported, then do the job in the folder named."""
    with contextlib.suppress(AttributeError, OSError):  # not on every platform
        os.nice(19)
    folder = Path(sys.argv[1]) if len(sys.argv) == 2 else Path()
    if not (folder / "job.json").is_file():  # also lest the wrong folder be removed
        sys.exit(f"there is no job.json in {str(folder)!r}; a RetrainWorker makes the folder and starts this")
    threading.Thread(target=_die_with_parent, args=(folder,), daemon=True).start()
    from ml4t_actor.training.worker import run_job_file

    run_job_file(folder, _report_progress)


def _report_progress(what: str, share: float) -> None:
    print(json.dumps({"progress": [what, share]}), flush=True)


def _die_with_parent(folder: Path) -> None:
    """End when standard input does: the parent holds its other end for as long as it lives."""
    # Not through `sys.stdin`: a thread that holds its lock makes the interpreter abort when it shuts down.
    while os.read(0, 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
