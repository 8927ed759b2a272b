"""Whatever the number of workers and the backend: the results of a plain loop, in its order."""

import os
import time

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from ml4t_actor.fan_out import fan_out


def simulate(seed: int) -> tuple[int, bytes]:
    """Return what only the seed decides, by a product that several threads would sum in another order."""
    rng = np.random.default_rng(seed)
    return seed, (rng.normal(size=(60, 4_000)) @ rng.normal(size=(4_000, 60))).tobytes()


def worker(_task: int) -> int:
    return os.getpid()


def most_threads(_task: int) -> int:
    return max((pool["num_threads"] for pool in threadpool_info()), default=1)


def most_threads_after(pause_s: float) -> int:
    time.sleep(pause_s)
    return most_threads(0)


def test_a_task_in_a_thread_stays_on_one_thread_when_another_ends():
    assert fan_out(most_threads_after, [0.2, 0.6], parallel="threading", n_jobs=2) == [1, 1]


@pytest.mark.slow
def test_results_depend_neither_on_the_number_of_workers_nor_on_the_backend():
    tasks = list(range(7))
    alone = fan_out(simulate, tasks, n_jobs=1)
    assert [seed for seed, _ in alone] == tasks
    for backend, n_jobs in (("loky", 2), ("loky", 3), ("threading", 3), ("sequential", 3)):
        assert fan_out(simulate, tasks, parallel=backend, n_jobs=n_jobs) == alone


@pytest.mark.slow
def test_tasks_run_in_processes_of_their_own():
    assert os.getpid() not in fan_out(worker, [0, 1], n_jobs=2)


@pytest.mark.parametrize("tasks", [[0], [0, 1]])
def test_no_process_is_started_for_one_worker_or_one_task(tasks):
    assert fan_out(worker, tasks, n_jobs=1 if len(tasks) > 1 else 4) == [os.getpid()] * len(tasks)


def workers_of_tasks(_task: int) -> tuple[int, list[int]]:
    return os.getpid(), fan_out(worker, [0, 1], n_jobs=2)


def test_a_task_starts_no_process_for_tasks_of_its_own():
    (own, inner), *_ = fan_out(workers_of_tasks, [0, 1], n_jobs=2, parallel="threading")
    assert inner == [own, own]


def test_no_task_gives_no_result():
    assert fan_out(worker, []) == []


def test_linear_algebra_runs_on_one_thread_in_every_task():
    assert fan_out(most_threads, [0, 1], n_jobs=1) == [1, 1]


def test_progress_counts_the_tasks_done():
    told = []
    fan_out(abs, [3, 4, 5], n_jobs=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_error_of_a_task_is_raised():
    with pytest.raises(ZeroDivisionError):
        fan_out((1).__truediv__, [1, 0], n_jobs=1)


@pytest.mark.parametrize("n_jobs", [0, -1])
def test_a_number_of_workers_that_makes_no_sense_is_refused(n_jobs):
    with pytest.raises(ValueError, match=f"`n_jobs` was {n_jobs}"):
        fan_out(abs, [1], n_jobs=n_jobs)
