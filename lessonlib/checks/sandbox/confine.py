"""How a student's process is shut in, as well as this machine can: the walls around `sandbox.Child`.

Three levels. "bubblewrap" gives the process a file system with nothing in it but Python and what the exercise
may import, no network, and process ids of its own. "user" runs it under a user id that nobody else has, which
takes root. "limits" is what is left. Limits on time, memory, processes and file sizes hold on every level; the
limit on processes does not bind root, which is why root's children get another user id wherever that works.

Which level works is found out by trying it, since what a container forbids is written nowhere.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lessonlib import layout
from lessonlib.errors import CourseError

# What a submission may try, in words for a report.
NETWORK = "the network"
FILES = "reading files that this user may read, solutions and other submissions among them"
WORLD_FILES = "reading files that everyone may read, solutions among them"
SPACE = "filling the disk with many files"
DAEMONS = "processes left behind that have left their session"
PROCESSES = "many processes (the limit does not bind root)"
PARENT = "stopping the checker"
MEMORY = "taking all of the memory (only Linux limits it)"

ALL_IS_WELL = (
    "all is well: your own code ran on your own machine, with limits on time; to check code of others, see "
    "`lesson doctor`"
)


@dataclass(frozen=True)
class Level:
    """How well a process is shut in.

    Attributes:
        name: "bubblewrap", "user" or "limits".
        not_contained: attacks that it does not keep out, in words.
    """

    name: str
    not_contained: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For whoever runs other people's code: "sandbox: limits; not contained: the network, …"."""
        missing = f"; not contained: {', '.join(self.not_contained)}" if self.not_contained else ""
        return f"sandbox: {self.name}{missing}"

    @property
    def to_a_student(self) -> str:
        """For the end of a report on one's own code, which is as safe to run as it is without a checker."""
        fine = f" ({ALL_IS_WELL})" if self.not_contained else ""
        return f"sandbox: {self.name}{fine}"


BUBBLEWRAP = Level("bubblewrap")
USER = Level("user", (NETWORK, WORLD_FILES, SPACE))
LIMITS = Level("limits", (NETWORK, FILES, SPACE, DAEMONS, PARENT))

USER_IDS = range(60706, 61184)  # of no account and of no service, by the conventions of Debian and systemd
LEASES = Path("/run/lesson-user-ids")  # a lock for each id in use
SCRATCH_BYTES = 64 << 20  # what all files of a submission may take, under bubblewrap
NESTED = ("bwrap", "--dev-bind", "/", "/", "--unshare-user", "--disable-userns")
MOST_LOOKED_AT = 1_000  # processes of one submission whose memory is added up
PROBE_SECONDS = 20
STOP_SECONDS = 5.0
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64")
READ_OF_ETC = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
INSTALLED = [f"{base}python3*/{name}-packages" for base in ("", "lib*/") for name in ("site", "dist")]
CUDA_DEVICES = ("nvidia*", "nvidia-caps")
MAY_BE_IMPORTED = ("numpy", "torch", "triton")
# Without the first two some Pythons do not start; the others say which card and which compiler to use.
KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT", "CUDA_VISIBLE_DEVICES", "TRITON_LIBCUDA_PATH", "CC")
PROBE = "import json, os, sys; sys.exit(not all(map(os.listdir, sys.argv[1:])))"
CUDA_PROBE = f"import ctypes; assert ctypes.CDLL('libcuda.so.1').cuInit(0) == 0; {PROBE}"


def interpreter() -> str:
    """The Python that runs students' files: this one, without the virtual environment around it."""
    return str(Path(sys.executable).resolve())


def kept_variables() -> dict[str, str]:
    """What a student's process inherits of this one's environment."""
    return {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}


class Cell:
    """The walls around one process after another, for the life of one `Child`.

    Args:
        level: how well to shut it in.
        root: a folder of this cell alone; `root / "work"` is where the process works.
        packages: files and folders that the process may read beside Python's own.
        needs_gpu: whether it may use the GPU.
    """

    def __init__(
        self, level: Level, root: Path, packages: Sequence[Path] = (), needs_gpu: bool = False
    ) -> None:
        self.level, self.root, self.work = level, root, root / "work"
        self._packages, self._needs_gpu = packages, needs_gpu
        self._lease = _lease_user() if os.geteuid() == 0 and level.name != LIMITS.name else None
        self._process: subprocess.Popen[bytes] | None = None
        self._inside = -1  # a pidfd of the first process inside, under bubblewrap
        self._first = 0  # its process id, or the program's own
        self._is_nested = self._lease is not None and level == BUBBLEWRAP and _can_nest()
        if self._lease is not None:
            self._hand_over(self._lease.user)
            if level == USER:
                _end_all_of(self._lease.user)  # what a grader left that was killed itself

    @property
    def most_processes(self) -> int:
        """What to set the limit to. It counts a user's processes, so this user's own come on top."""
        allowed = 256 if self._needs_gpu else 32
        return allowed if self._lease is not None else allowed + _threads_of(os.getuid())

    def start(self, program: Sequence[str], environment: dict[str, str], pass_fds: Sequence[int]) -> None:
        """Run a program inside. Its folder is `work`; it has no terminal."""
        status_read, status_write = os.pipe()
        try:
            self._process = subprocess.Popen(
                self._command(program, status_write),
                cwd=self.work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(*pass_fds, status_write) if self.level == BUBBLEWRAP else pass_fds,
                start_new_session=True,
            )
        finally:
            os.close(status_write)
            with os.fdopen(status_read, encoding="utf-8") as status:
                line = status.read()  # bubblewrap closes its end before the program runs
        self._first = self._process.pid
        if line:
            with contextlib.suppress(OSError, ValueError, KeyError):
                self._first = json.loads(line)["child-pid"]
                self._inside = os.pidfd_open(self._first)

    def program(self) -> int:
        """The program's process id; 0 where it cannot be told (yet). Ask before a student's code can start others."""
        if self.level != BUBBLEWRAP:
            return self._first
        process = self._first
        for _ in range(1 + self._is_nested):
            process = next(iter(_children(process)), 0)
        return process

    def memory(self) -> int:
        """Bytes of main memory that all processes inside take together, as far as they are known."""
        return _memory_of(self._family())

    def _family(self) -> list[int]:
        """The processes inside; without bubblewrap, those that have not left their parents."""
        if self._lease is not None and self.level == USER:
            return _processes_of(self._lease.user)
        found: list[int] = []
        left = [self._first]
        while left and len(found) < MOST_LOOKED_AT:
            found.append(left.pop())
            left += _children(found[-1])
        return found

    def wait(self, seconds: float) -> int | None:
        """The exit code (-n: ended by signal n, as bubblewrap tells it too), or None while it runs."""
        assert self._process is not None
        try:
            code = self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None
        by_signal = self.level == BUBBLEWRAP and code - 128 in signal.valid_signals()
        return 128 - code if by_signal else code

    def stop(self) -> None:
        """End the process and, as far as the level reaches, everything that it started."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        if self._inside >= 0:
            _end(self._inside)
            self._inside = -1
        self._process.wait()
        self._process = None
        if self._lease is not None and self.level == USER:
            _end_all_of(self._lease.user)

    def close(self) -> None:
        """Stop, and give the user id back."""
        self.stop()
        if self._lease is not None:
            self._lease.release()

    def _hand_over(self, user: int) -> None:
        """The folder for that user to read and its `work` to write in; nobody else can look into it.

        Whatever this process's umask is: a careful administrator's would leave the user nothing to read.
        """
        for folder, _, names in os.walk(self.root):
            os.chown(folder, 0, user)
            os.chmod(folder, 0o750)
            for path in (Path(folder, name) for name in names):
                os.chown(path, 0, user, follow_symlinks=False)
                if not path.is_symlink():
                    path.chmod(0o640)
        os.chown(self.work, user, user)

    def _command(self, program: Sequence[str], status: int) -> list[str]:
        as_user = _as_user(self._lease.user) if self._lease is not None else []
        if self.level == BUBBLEWRAP:
            # A user id of one's own is taken inside, where namespaces are then given up in a bubble of its own.
            inner = [*NESTED, "--"] if self._is_nested else []
            return [*self._bubble(), "--info-fd", str(status), "--", *as_user, *inner, *program]
        ends_with_us = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
        return [*as_user, *ends_with_us, *program]  # in this order: a change of user would forget the signal

    # ----- bubblewrap -----

    def _bubble(self) -> list[str]:
        """The command up to the program."""
        shown, hidden = _shown_folders(), _hidden_folders()
        command = ["bwrap", "--die-with-parent", "--unshare-pid", "--unshare-net", "--unshare-ipc"]
        command += ["--unshare-uts", "--unshare-cgroup-try"]
        if self._lease is None:
            command += ["--unshare-user", *(["--disable-userns"] if _can_disable() else [])]
        for folder in shown:
            command += _show(folder)
        for name in SYSTEM:
            if os.path.islink(name):
                command += ["--symlink", os.readlink(name), name]
            elif os.path.isdir(name):
                command += ["--ro-bind", name, name]
        for name in READ_OF_ETC:
            command += ["--ro-bind-try", name, name]
        for folder in hidden:
            command += ["--tmpfs", folder]
        for package in self._packages:
            command += _show(str(package))
        for folder in hidden:
            command += ["--remount-ro", folder]
        command += ["--proc", "/proc", "--dev", "/dev", *(_gpu_shown() if self._needs_gpu else ())]
        command += ["--size", str(SCRATCH_BYTES), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]
        command += _show(str(self.root))
        command += ["--size", str(SCRATCH_BYTES), "--perms", "0777", "--tmpfs", str(self.work)]
        for path in sorted(self.work.iterdir()):
            command += ["--ro-bind", str(path), str(path)]
        return [*command, "--remount-ro", "/", "--chdir", str(self.work)]


def _show(path: str) -> list[str]:
    """A file or a folder in its own place. The folders above it are made first, for everyone to walk through."""
    return ["--dir", str(Path(path).parent), "--ro-bind", path, path]


def _shown_folders() -> list[str]:
    """The system's programs and libraries, and this Python where it lies elsewhere."""
    wanted = ["/usr", *(str(Path(prefix).resolve()) for prefix in (sys.base_prefix, sys.base_exec_prefix))]
    wanted += [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":") if os.path.isdir(folder)]
    shown: list[str] = []
    for folder in wanted:
        if not any(Path(folder).is_relative_to(other) for other in shown):
            shown.append(folder)
    return shown


def _hidden_folders() -> list[str]:
    """What lies inside the shown folders and is none of a student's business: installed packages, the course."""
    shown = [Path(folder) for folder in _shown_folders()]
    found = [
        path for folder in (*shown, Path("/usr/local")) for name in INSTALLED for path in folder.glob(name)
    ]
    courses = (layout.PACKAGE.parent, layout.home())
    found += [course for course in courses if any(course.is_relative_to(folder) for folder in shown)]
    return sorted({str(path) for path in found if path.is_dir() and not path.is_symlink()})


def _gpu_shown() -> Iterator[str]:
    for pattern in CUDA_DEVICES:
        for device in sorted(Path("/dev").glob(pattern)):
            yield from ("--dev-bind-try", str(device), str(device))
    yield from ("--ro-bind-try", "/sys", "/sys")


def _end(pidfd: int) -> None:
    """Kill the first process inside and wait until it is gone, and with it all the others."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    select.select([pidfd], [], [], STOP_SECONDS)
    os.close(pidfd)


@cache
def _can_disable() -> bool:
    """Whether this bubblewrap can keep a process from making user namespaces (0.8 and later)."""
    return _runs(["bwrap", "--ro-bind", "/", "/", "--unshare-user", "--disable-userns", "--", "true"])


@cache
def _can_nest() -> bool:
    """The same for a process that has given root up; where it may make none anyway, it need not be kept from it."""
    inside = [*_as_user(USER_IDS[-1]), *NESTED, "--", "true"]
    return _runs(["bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--", *inside])


def _runs(command: Sequence[str]) -> bool:
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


# ----- how much memory -----


def _children(process: int) -> list[int]:
    """As Linux lists them: psutil would look at every process of the machine."""
    try:
        if sys.platform != "linux":
            return [each.pid for each in psutil.Process(process).children()]
        children = Path(f"/proc/{process}/task/{process}/children").read_text(encoding="ascii")
    except (OSError, psutil.Error):
        return []
    return [int(each) for each in children.split()]


def _memory_of(processes: Sequence[int]) -> int:
    """Bytes; pages that several share are counted once, where the kernel says how they are shared."""
    return sum(_memory(process, is_alone=len(processes) == 1) for process in processes)


def _memory(process: int, is_alone: bool) -> int:
    try:
        found = psutil.Process(process)
        if not is_alone:
            with contextlib.suppress(psutil.AccessDenied):
                full = found.memory_full_info()
                return int(getattr(full, "pss", full.rss))
        return int(found.memory_info().rss)
    except psutil.Error:
        return 0


# ----- another user id -----


def _as_user(user: int) -> list[str]:
    return [
        *("setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups"),
        *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"),
    ]


@dataclass
class _Lease:
    """A user id that is this cell's alone until it is released."""

    user: int
    lock: FileLock

    def release(self) -> None:
        self.lock.release()


def _lease_user() -> _Lease:
    """Raises `CourseError` where all are taken."""
    LEASES.mkdir(mode=0o700, exist_ok=True)
    first = os.getpid() * 7  # graders beside each other begin at different ones
    for offset in range(len(USER_IDS)):
        user = USER_IDS[(first + offset) % len(USER_IDS)]
        lock = FileLock(LEASES / str(user), timeout=0)
        try:
            lock.acquire()
        except Timeout:
            continue
        if not _is_account(user):
            return _Lease(user, lock)
        lock.release()
    raise CourseError(f"all user ids from {USER_IDS[0]} to {USER_IDS[-1]} are taken: end other graders")


def _is_account(user: int) -> bool:
    try:
        pwd.getpwuid(user)
    except KeyError:
        return False
    return True


def _end_all_of(user: int) -> None:
    """End every process of a user id that has no other use. One pass of the kernel; no fork outruns it."""
    deadline = time.monotonic() + STOP_SECONDS
    while _threads_of(user) and time.monotonic() < deadline:
        subprocess.run([*_as_user(user), "sh", "-c", "kill -9 -1"], stderr=subprocess.DEVNULL, check=False)
        time.sleep(0.02)


def _processes_of(user: int) -> list[int]:
    """Processes that run under a user id now."""
    found = (each.info for each in psutil.process_iter(["pid", "uids"]))
    return [info["pid"] for info in found if info["uids"] and info["uids"].real == user]


def _threads_of(user: int) -> int:
    """Threads that run under a user id now."""
    found = (each.info for each in psutil.process_iter(["uids", "num_threads", "status"]))
    return sum(
        info["num_threads"] or 0
        for info in found
        if info["uids"] and info["uids"].real == user and info["status"] != psutil.STATUS_ZOMBIE
    )


# ----- which level -----


@cache
def best_level(needs_gpu: bool = False) -> Level:
    """The best level that works on this machine, for a process that uses the GPU or for one that does not."""
    if sys.platform != "linux":
        return _limits()
    if shutil.which("bwrap") and _works(BUBBLEWRAP, needs_gpu):
        return BUBBLEWRAP
    if os.geteuid() == 0 and shutil.which("setpriv") and _works(USER, needs_gpu):
        return USER
    return _limits()


def _limits() -> Level:
    """The level "limits" as it is for this user on this system."""
    missing = [*LIMITS.not_contained]
    if os.geteuid() == 0:
        missing.append(PROCESSES)
    if sys.platform != "linux":
        missing.append(MEMORY)
    return Level(LIMITS.name, tuple(missing))


def why_no_better() -> str:
    """What keeps this machine from a better level than its best, and what to do; "" where nothing does."""
    if best_level() == BUBBLEWRAP:
        return ""
    folder = _closed_folder() if os.geteuid() == 0 and best_level() != USER else None
    if folder is not None:
        return f"other users cannot enter {folder}: chmod o+x {folder}, or move the course out of it"
    return "to contain more, install bubblewrap"


def _closed_folder() -> Path | None:
    """The first folder on the way to this Python or to a package that a user without rights cannot enter."""
    needed = [
        Path(interpreter()),
        *(Path(folder) for name in MAY_BE_IMPORTED for folder in _folders_of(name)),
    ]
    for path in needed:
        for folder in [*reversed(path.parents), path]:
            if folder.is_dir() and not folder.stat().st_mode & 0o001:
                return folder
    return None


def level_named(name: str) -> Level:
    """A level by its name, whether it works or not; "auto" for the best that works.

    Raises `CourseError` for another name.
    """
    levels = {level.name: level for level in (BUBBLEWRAP, USER, LIMITS)}
    if name == "auto":
        return best_level()
    if name not in levels:
        raise CourseError(f"unknown sandbox {name!r}: there is auto, {', '.join(levels)}")
    return _limits() if name == LIMITS.name else levels[name]


def _works(level: Level, needs_gpu: bool) -> bool:
    """Whether Python starts behind these walls, can read what it may import and, where it is needed, finds the GPU."""
    readable = [Path(each) for name in MAY_BE_IMPORTED for each in _folders_of(name)]
    with tempfile.TemporaryDirectory(prefix="check-") as folder:
        (Path(folder) / "work").mkdir()
        try:
            cell = Cell(level, Path(folder), readable, needs_gpu)
        except (OSError, CourseError):
            return False
        try:
            program = [interpreter(), "-I", "-S", "-c", CUDA_PROBE if needs_gpu else PROBE]
            cell.start([*program, *map(str, readable)], {"PATH": os.defpath, **kept_variables()}, ())
            return cell.wait(PROBE_SECONDS) == 0
        except OSError:
            return False
        finally:
            cell.close()


def _folders_of(module: str) -> list[str]:
    spec = importlib.util.find_spec(module)
    return list(spec.submodule_search_locations or ()) if spec else []
