"""The contenders: one entry each, with all that sets it apart.

To add one, write an entry and, for an engine that is new here, a module with `make(entry, job)`. Only the standard
library is imported here, since every contender's process reads this under its own Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lessonlib.contenders.job import Job, Row
from lessonlib.errors import CourseError

HF = "lessonlib.contenders.hf"
HF_CB = "lessonlib.contenders.hf_cb"
COURSE = "lessonlib.contenders.course"
VLLM = "lessonlib.contenders.vllm_engine"


@dataclass(frozen=True)
class Entry:
    """One contender.

    Attributes:
        name: on the command line and in records.
        module: the one whose `make(entry, job)` gives its `engine.Engine`, the model loaded.
        options: what it is made with; the module says what they mean.
        builds_on: the contender whose options hold too, unless `options` replaces them.
        takes_paged_slots: whether it runs up to `Job.paged_slots` requests at once, rather than `Job.slots`.
        takes_own_parts: whether it is made with the student's functions of `Job.own`.
        takes_arrivals: whether requests can be added while others run.
        takes_dtype: whether it computes in `Job.dtype`, rather than in the one that the model's files have.
        takes_sampling: whether it runs rows that are not greedy, or ask for log probabilities.
        takes_conversations: whether it runs rows of several turns, whose earlier K/V it can keep.
        needs_kernels: whether it imports `kernels`. transformers must not find a package of that name.
        runs_under_vllm: whether its process is started with the Python that has vLLM.
    """

    name: str
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    builds_on: str = ""
    takes_paged_slots: bool = False
    takes_own_parts: bool = False
    takes_arrivals: bool = True
    takes_dtype: bool = True
    takes_sampling: bool = True
    takes_conversations: bool = True
    needs_kernels: bool = True
    runs_under_vllm: bool = False

    def takes(self, row: Row) -> bool:
        """Whether it runs such a row at all."""
        return (
            (self.takes_arrivals or not row.arrivals)
            and (self.takes_sampling or not row.sampling)
            and (self.takes_conversations or not row.follow_ups)
        )

    def max_num_seqs(self, job: Job) -> int:
        """Requests that it runs at once."""
        return job.paged_slots or job.slots if self.takes_paged_slots else job.slots

    @property
    def all_options(self) -> dict[str, Any]:
        """Its own options on top of those that it builds on."""
        return {**(entry(self.builds_on).all_options if self.builds_on else {}), **self.options}


OF_TRANSFORMERS: dict[str, Any] = {
    "takes_arrivals": False,
    "takes_sampling": False,
    "takes_conversations": False,
    "needs_kernels": False,
}
OF_VLLM: dict[str, Any] = {"takes_paged_slots": True, "needs_kernels": False, "runs_under_vllm": True}
CONTENDERS = {
    each.name: each
    for each in (
        Entry("hf", HF, {"compile": True}, **OF_TRANSFORMERS),
        Entry("hf-dynamic", HF, {"compile": False}, **OF_TRANSFORMERS),
        Entry("hf-cb", HF_CB, **OF_TRANSFORMERS),
        # The course's engine, from static batches to the whole of it, one change at a time.
        Entry(
            "course-static", COURSE, {"policy": "static", "enforce_eager": True, "async_scheduling": False}
        ),
        Entry("course-continuous", COURSE, {"policy": "prefill-first-reserved"}, "course-static"),
        Entry(
            "course-paged", COURSE, {"policy": "prefill-first"}, "course-continuous", takes_paged_slots=True
        ),
        Entry("course-mixed", COURSE, {"policy": "continuous"}, "course-paged", takes_paged_slots=True),
        Entry("course-graphs", COURSE, {"enforce_eager": False}, "course-mixed", takes_paged_slots=True),
        Entry("course", COURSE, {"async_scheduling": None}, "course-graphs", takes_paged_slots=True),
        # The whole engine with a student's functions in it, those that pass their checks.
        Entry("mine", COURSE, {}, "course", takes_paged_slots=True, takes_own_parts=True),
        Entry("vllm", VLLM, **OF_VLLM),
        # The control run: nothing set but the model. Its prefix cache is on, so a repetition finds its prompts there.
        Entry("vllm-as-it-comes", VLLM, {"by_default": True}, takes_dtype=False, **OF_VLLM),
    )
}
MACHINE = Entry("machine", "lessonlib.contenders.machine")
"""Not a contender: it measures the machine, in a process like theirs."""

DEFAULT_CONTENDERS = ("hf", "course", "vllm")


def entry(name: str) -> Entry:
    """The entry of that name. Raises `CourseError` for an unknown one."""
    found = {**CONTENDERS, MACHINE.name: MACHINE}.get(name)
    if found is None:
        raise CourseError(f"unknown contender {name!r}: use one or more of {', '.join(CONTENDERS)}")
    return found
