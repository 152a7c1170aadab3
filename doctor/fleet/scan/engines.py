"""Engines: joblib with local processes, a dask cluster, or ray. All run `doctor.fleet.scan.worker.work`."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from doctor.errors import DoctorError
from doctor.fleet.scan.worker import work
from doctor.support.optional import need

NAMES = ("local", "dask", "ray")
Results = Iterator[list[tuple[str, bytes]]]
Engine = Callable[[Iterable[list[bytes]]], Results]
TASKS_AHEAD = 3
"""Tasks per worker that are handed out ahead of the results."""


class Choice(msgspec.Struct, frozen=True):
    """Which engine, its address (empty: start one), and how many runs are analyzed at a time."""

    name: str = "local"
    address: str = ""
    jobs: int = 0


@contextlib.contextmanager
def started(choice: Choice) -> Iterator[Engine]:
    """The engine, connected or started, and closed at the end. Raises DoctorError if it is not installed or cannot be reached."""
    joblib = need("joblib", "fleet")
    jobs = choice.jobs or processors()
    opened = {"local": _local, "dask": _dask, "ray": _ray}[choice.name](joblib, choice.address, jobs)
    with opened as engine:
        yield engine


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _local(joblib: Any, address: str, jobs: int) -> Iterator[Engine]:
    """A thread per job, each with a worker process of its own."""
    if address:
        raise DoctorError("--address is for --engine dask or ray")
    yield lambda tasks: joblib.Parallel(
        n_jobs=jobs, backend="threading", return_as="generator_unordered", pre_dispatch=TASKS_AHEAD * jobs, batch_size=1
    )(joblib.delayed(work)(task) for task in tasks)


@contextlib.contextmanager
def _dask(joblib: Any, address: str, jobs: int) -> Iterator[Engine]:
    """A running scheduler, or one of our own with a worker process per job."""
    distributed = need("distributed", "fleet")
    with contextlib.ExitStack() as stack:
        try:
            if address:
                client = stack.enter_context(distributed.Client(address, timeout=20, set_as_default=True))
            else:
                cluster = distributed.LocalCluster(n_workers=jobs, threads_per_worker=1, dashboard_address=None)
                client = stack.enter_context(distributed.Client(stack.enter_context(cluster)))
        except OSError as error:
            raise DoctorError(f"--address {address}: no dask scheduler answers: {error}") from error
        total = max(1, sum(client.nthreads().values()) if address else jobs)
        stack.enter_context(joblib.parallel_config(backend="dask", client=client))
        yield lambda tasks: joblib.Parallel(n_jobs=-1, return_as="generator_unordered", pre_dispatch=TASKS_AHEAD * total, batch_size=1)(
            joblib.delayed(work)(task) for task in tasks
        )


@contextlib.contextmanager
def _ray(joblib: Any, address: str, jobs: int) -> Iterator[Engine]:
    """A ray cluster, or one of our own. Its joblib backend returns results in windows."""
    ray = need("ray", "ray")
    need("ray.util.joblib", "ray").register_ray()
    where = {"address": address} if address else {"num_cpus": jobs, "include_dashboard": False}

    def connect() -> None:
        try:
            ray.init(**where, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise DoctorError(f"--address {address}: no ray cluster answers: {error}") from error

    if not ray.is_initialized():
        connect()
    total = max(1, int(ray.cluster_resources().get("CPU", jobs)) if address else jobs)

    def results(tasks: Iterable[list[bytes]]) -> Results:
        waiting = iter(tasks)
        if not ray.cluster_resources().get("CPU"):  # the node itself died: a new one, or another of the cluster
            ray.shutdown()
            connect()
        with joblib.parallel_config(backend="ray"), joblib.Parallel(n_jobs=total, batch_size=1) as parallel:
            while window := list(itertools.islice(waiting, total * 2)):
                yield from parallel(joblib.delayed(work)(task) for task in window)

    try:
        yield results
    finally:
        ray.shutdown()
