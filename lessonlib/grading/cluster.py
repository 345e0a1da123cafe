"""Where jobs run: Dask workers, on this machine or behind the address of a scheduler that is there already.

A worker may own a GPU: its resource `GPU`. A job that wants one goes to such a worker, one at a time.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distributed import Client, Future, Nanny, Scheduler, Security, SpecCluster
from distributed.comm.core import CommClosedError

from kernels.tier import find as find_tier
from lessonlib import __version__
from lessonlib.checks.spec import GPU
from lessonlib.errors import CourseError
from lessonlib.grading import job
from lessonlib.grading.job import Job

CONNECT_SECONDS = 15
NO_WORKER_SECONDS = 60  # without any worker, until the jobs are given up
NO_RESULT_SECONDS = 3600  # without a job that is done, until they are given up
ONE_GPU = {"GPU": 1.0}
LOCAL = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": "127.0.0.1:0"}


@contextmanager
def connect(workers: int | None, scheduler: str | None, jobs_want_gpu: bool) -> Iterator[Client]:
    """A client of the scheduler at that address, or of `workers` processes of this machine (one a core).

    Raises `CourseError` for a scheduler that does not answer, has no workers, or workers of another course.
    """
    if scheduler is not None:
        with _remote(scheduler) as client:
            yield client
        return
    if workers is not None and workers < 1:
        raise CourseError(f"--workers {workers}: give 1 or more")
    gpus = _gpus_here() if jobs_want_gpu else []
    with (
        tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as scratch,
        _here(workers or os.cpu_count() or 1, gpus, scratch) as cluster,
        Client(cluster, timeout=CONNECT_SECONDS, security=cluster.security) as client,
    ):
        yield client


class Pool:
    """Jobs that a client's workers do, and what became of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pending: dict[Future[Any], Job] = {}
        workers = client.scheduler_info(n_workers=-1)["workers"].values()
        self._has_gpu = any("GPU" in worker["resources"] for worker in workers)
        self._changed = self._with_workers = time.monotonic()  # when a job was done, when a worker was there
        self._warned = False

    @property
    def is_idle(self) -> bool:
        return not self._pending

    def submit(self, one: Job) -> None:
        """A job that wants a GPU goes to a worker that owns one, where there is such a worker."""
        resources = ONE_GPU if one.wants_gpu and self._has_gpu else {}
        future = self._client.submit(job.run, one, pure=False, retries=1, resources=resources)
        self._pending[future] = one

    def finished(self) -> Iterator[tuple[Job, dict[str, Any] | None]]:
        """Jobs that are done by now, and what `job.run` gave; None for a job whose worker was lost."""
        for future in [each for each in self._pending if each.done()]:
            self._changed = time.monotonic()
            yield self._pending.pop(future), future.result() if future.status == "finished" else None

    def why_stuck(self, log: Callable[[str], None]) -> str:
        """Why nothing more will come, "" while something may; `log` gets a line when the last worker has gone."""
        now = time.monotonic()
        if self._has_workers():
            self._with_workers, self._warned = now, False
        elif not self._warned:
            self._warned = True
            log(f"no worker is left: waiting {NO_WORKER_SECONDS} seconds for one")
        if now - self._with_workers > NO_WORKER_SECONDS:
            return "no worker is left"
        return f"nothing came of it in {NO_RESULT_SECONDS} seconds" * (
            now - self._changed > NO_RESULT_SECONDS
        )

    def _has_workers(self) -> bool:
        """As far as is known: the scheduler tells every few seconds."""
        return self._client.status == "running" and bool(self._client.scheduler_info(n_workers=-1)["workers"])


def _here(workers: int, gpus: list[str], scratch: str) -> SpecCluster:
    """Processes of this machine; the first of them own a GPU each.

    Nothing but this machine can reach them, and nothing without this run's own key: whoever can talk to a Dask
    worker can have it run anything, and a student's process is not shut off from the network on every level.
    """
    security = Security.temporary()
    options: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "local_directory": scratch}
    options |= {**LOCAL, "protocol": "tls://", "security": security, "silence_logs": logging.CRITICAL}
    spec = {}
    for index in range(max(workers, len(gpus))):
        owns: dict[str, Any] = {}
        if index < len(gpus):
            owns = {"resources": ONE_GPU, "env": {"CUDA_VISIBLE_DEVICES": gpus[index]}}
        spec[index] = {"cls": Nanny, "options": {**options, **owns}}
    return SpecCluster(
        workers=spec,
        scheduler={
            "cls": Scheduler,
            "options": {**LOCAL, "port": 0, "protocol": "tls://", "security": security},
        },
        security=security,
        silence_logs=logging.CRITICAL,
    )


def _gpus_here() -> list[str]:
    """The names by which CUDA knows the GPUs of this machine."""
    if find_tier().name != GPU:
        return []
    import torch

    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named or [str(index) for index in range(torch.cuda.device_count())]


@contextmanager
def _remote(address: str) -> Iterator[Client]:
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError, CommClosedError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CourseError(
            f"no scheduler answers at {address} ({reason}): start one with `dask scheduler`"
        ) from error
    with client:
        try:
            versions = client.run(job.version)
        except Exception as error:
            raise CourseError(
                f"the workers at {address} have no course {__version__}: install it there"
            ) from error
        if not versions:
            raise CourseError(f"the scheduler at {address} has no workers: start `dask worker {address}`")
        other = {worker: found for worker, found in versions.items() if found != __version__}
        if other:
            worker, found = next(iter(other.items()))
            raise CourseError(
                f"worker {worker} has course {found}, here is {__version__}: bring them in step"
            )
        yield client
