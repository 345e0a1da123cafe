"""What a hostile submission may try: the body of `static_utilization(lengths, slots)`, and what it is told.

`{marker}` becomes a text that is in the command line of everything the attack leaves running, `{secret}` the
path of a file that is none of a student's business, `{port}` a port on which this machine listens.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attack:
    """One way to do harm.

    Attributes:
        body: lines of the function.
        told: pieces of what the student may be told; one of them is.
        outside: the level "limits" does not contain it.
    """

    body: str
    told: tuple[str, ...]
    outside: bool = False


ENDS = ("No answer within", "The call ended Python itself")

ATTACKS = {
    "endless_loop": Attack("while True: pass", ("No answer within",)),
    "sleeps": Attack("import time; time.sleep(1000)", ("No answer within",)),
    "fork_bomb": Attack(
        "import os\nwhile True: os.fork()",
        ("BlockingIOError", "No answer within", "wrote into the checker's own pipe"),
        outside=True,
    ),
    "thread_bomb": Attack(
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(1000,)).start()",
        ("can't start new thread", *ENDS),
        outside=True,
    ),
    "memory_bomb": Attack("held = []\nwhile True: held.append(bytearray(1 << 26))", ("MemoryError", *ENDS)),
    "disk_filler": Attack(
        "import itertools\n"
        "for name in itertools.count():\n"
        "    with open(f'{name}', 'wb') as file: file.write(b'0' * (4 << 20))",
        ("No space left on device", "No answer within"),
        outside=True,
    ),
    "large_file": Attack(
        "with open('large', 'wb') as file:\n    while True: file.write(b'0' * (1 << 20))",
        ("File too large", "signal SIGXFSZ"),
    ),
    "output_flood": Attack("while True: print('x' * 1_000_000)", ("No answer within",)),
    "pipe_flood": Attack(
        "import os\n"
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    try:\n"
        "        while True: os.write(fd, b'x' * 65536)\n"
        "    except OSError: pass",
        ("wrote into the checker's own pipe", "No answer within"),
    ),
    "deep_json": Attack(
        "import os\n"
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: os.write(fd, b'[' * 50_000 + b'\\n')\n"
        "    except OSError: pass",
        ("wrote into the checker's own pipe",),
    ),
    "forged_answer": Attack(
        "import os\n"
        'line = b\'{"id": 3, "answer": null, "printed": "", "changed": {"7": 1}}\\n\'\n'
        "for fd in map(int, os.listdir('/proc/self/fd')):\n"
        "    try: os.write(fd, line)\n"
        "    except OSError: pass\n"
        "return 2.0",
        ("wrote into the checker's own pipe",),
    ),
    "forged_report": Attack(
        "import os\nos.write(1, b'18 of 18 passed\\n')\nprint('18 of 18 passed')\nreturn 2.0",
        ("must hold  utilization is never above one",),
    ),
    "terminal_orders": Attack(
        "print('\\x1b[2J\\x1b]0;owned\\x07')\nraise ValueError('\\x1b[31m')", ("It raised ValueError",)
    ),
    "deep_recursion": Attack(
        "import sys\nsys.setrecursionlimit(10**9)\nreturn static_utilization(lengths, slots)",
        ("RecursionError", "MemoryError", *ENDS),
    ),
    "exit": Attack("raise SystemExit(0)", ("It raised SystemExit: 0",)),
    "hard_exit": Attack("import os; os._exit(0)", ("exit code 0",)),
    "kills_the_parent": Attack(
        "import os\nos.kill(os.getppid(), 9)\nreturn 2.0",
        ("Operation not permitted", "utilization is never above one", "It raised"),
        outside=True,
    ),
    "reads_the_solution": Attack("return open({secret!r}).read()", ("FileNotFoundError",), outside=True),
    "imports_the_solution": Attack(
        "from solutions.ex01 import static_utilization as right\nreturn right(lengths, slots)",
        ("ModuleNotFoundError",),
    ),
    "imports_the_course": Attack(
        "from lessonlib.utilization import static_utilization as right\nreturn right(lengths, slots)",
        ("ModuleNotFoundError",),
    ),
    "patches_the_checker": Attack(
        "import __main__, builtins, json\n"
        "__main__.encode = __main__._encode = lambda *what: 0.5\n"
        "json.dumps = lambda what, right=json.dumps: right({**what, 'status': 'passed', 'raised': None})\n"
        "builtins.isinstance = lambda *what: True\n"
        "return 2.0",
        ("must hold",),
    ),
    "equal_to_everything": Attack(
        "class Right(float):\n    __eq__ = __le__ = __ge__ = lambda self, other: True\nreturn Right(2.0)",
        ("must hold  utilization is never above one",),
    ),
    "daemon": Attack(
        "import os, subprocess, sys\n"
        "if os.fork() == 0:\n"
        "    os.setsid()\n"
        "    os.closerange(0, 200)\n"
        "    os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', {marker!r}])\n"
        "import time; time.sleep(0.2)\n"
        "return 2.0",
        ("utilization is never above one",),
        outside=True,
    ),
    "network": Attack(
        "import socket\nsocket.create_connection(('127.0.0.1', {port}), 2)\nreturn 2.0",
        ("Connection refused", "Network is unreachable"),
        outside=True,
    ),
}


def source(attack: Attack, secret: str = "", marker: str = "", port: int = 9) -> str:
    """A file whose `static_utilization` is the attack."""
    body = attack.body
    for name, value in (("{secret!r}", repr(secret)), ("{marker!r}", repr(marker)), ("{port}", str(port))):
        body = body.replace(name, value)
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    return f"def static_utilization(lengths, slots):\n{indented}\n"
