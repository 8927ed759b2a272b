"""Independent tasks on several processes, with results that do not depend on how many there are."""

from collections.abc import Callable, Sequence
from contextvars import ContextVar

__all__ = ["fan_out"]

_IN_TASK: ContextVar[bool] = ContextVar("ml4t_in_task", default=False)


def fan_out[Task, Result](
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    parallel: str = "loky",
    n_jobs: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Result]:
    """Return ``[function(task) for task in tasks]``, computed by joblib.

    The results are those of a plain loop, bit for bit and in its order, if each task brings its own seed: linear
    algebra runs on one thread in every task, since sums on several threads round differently. Where there is only one
    task or one worker no process is started, nor by a task for tasks of its own.

    Parameters
    ----------
    function : callable
        Of one task; importable, if it is to run in another process.
    tasks : sequence
        Its arguments.
    parallel : str, default 'loky'
        The joblib backend: 'loky' for processes on this machine, 'threading', 'sequential', or one that was registered,
        such as 'dask' or 'ray' for a cluster.
    n_jobs : int, optional
        Most workers; by default as many as there are CPUs that this process may use.
    progress : callable, optional
        Called after each task, in order, with the number of tasks done and of all.

    Raises
    ------
    ValueError
        If `n_jobs` is not positive, or joblib knows no such backend.

    Examples
    --------
    >>> fan_out(abs, [-2, 1, -3], n_jobs=1)
    [2, 1, 3]
    """
    import joblib

    if n_jobs is None:
        n_jobs = joblib.cpu_count()
    if n_jobs < 1:
        raise ValueError(f"`n_jobs` was {n_jobs}, must be at least one worker")
    n_jobs = min(n_jobs, len(tasks))
    if n_jobs <= 1 or _IN_TASK.get():
        parallel = "sequential"
    from threadpoolctl import threadpool_limits

    workers = joblib.Parallel(n_jobs=max(1, n_jobs), backend=parallel, return_as="generator")
    results = []
    # Here as well: of tasks in threads of one process, the first to end gives back what it found, to all of them.
    with threadpool_limits(limits=1):
        for result in workers(joblib.delayed(_on_one_thread)(function, task) for task in tasks):
            results.append(result)
            if progress is not None:
                progress(len(results), len(tasks))
    return results


def _on_one_thread[Task, Result](function: Callable[[Task], Result], task: Task) -> Result:
    from threadpoolctl import threadpool_limits

    token = _IN_TASK.set(True)
    try:
        with threadpool_limits(limits=1):
            return function(task)
    finally:
        _IN_TASK.reset(token)
