"""`lesson lab`: JupyterLab on the course, for a person at a desk, in a container or on a machine far away."""

from __future__ import annotations

import errno
import ipaddress
import os
import shutil
import socket
import sys
import urllib.request
import webbrowser
from http import HTTPStatus
from pathlib import Path
from typing import Any

from lessonlib import layout
from lessonlib.errors import CourseError

HIGHEST_PORT = 65_535
ANSWER_SECONDS = 3


def lab_command(
    folder: Path, port: int | None, ip: str | None, is_root: bool, has_browser: bool
) -> list[str]:
    """The words that start JupyterLab with the course's folder as its root and notebook 01 open.

    A port that was asked for is taken or refused, never exchanged for the next one. Raises `CourseError` for a
    folder without the course, a port that is none and an address that is none.
    """
    if not (folder / layout.FIRST).is_file():
        raise CourseError(
            f"{folder} has no {layout.FIRST}: go to the course's folder, or lay one with `lesson start`"
        )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.default_url=/lab/tree/{layout.FIRST}",
    ]
    # A login shell would set PATH anew, and `lesson` would not be found in Lab's terminal.
    shell = shutil.which(os.environ.get("SHELL", "")) or shutil.which("bash") or "/bin/sh"
    command.append(f"--ServerApp.terminado_settings=shell_command=['{shell}']")
    if port is not None:
        if not 0 < port <= HIGHEST_PORT:
            raise CourseError(f"port {port}: give 1 to {HIGHEST_PORT:,}")
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if ip is not None:
        command.append(f"--ServerApp.ip={_address(ip)}")
    if is_root:
        command.append("--allow-root")
    if not has_browser:
        command.append("--no-browser")
    return command


def notices(ip: str | None, is_root: bool, has_browser: bool) -> list[str]:
    """What the person who starts it should know, a line each."""
    lines = []
    if is_root:
        lines.append(
            "running as root, without Jupyter's guard against it: whoever holds the token below already is root here"
            if is_open(ip)
            else "running as root, without Jupyter's guard against it: it listens on this machine alone, behind a token"
        )
    if is_open(ip):
        lines.append(
            f"open to the network on {ip}, as asked: who has the address with its token can run code here"
        )
    if not has_browser:
        lines.append("no browser here: open the address with its token that is printed below")
    return lines


def is_open(ip: str | None) -> bool:
    """Whether other machines can reach the server."""
    return ip is not None and not ipaddress.ip_address(_address(ip)).is_loopback


def open_lab(port: int | None, ip: str | None) -> None:
    """Become JupyterLab, or say where it is open on this folder already, unless a port or an address was asked for.

    Raises as `lab_command`, and `CourseError` for a port that is taken.
    """
    is_root, has_browser = os.geteuid() == 0, _has_browser()
    folder = layout.around() or layout.clone() or Path.cwd()
    command = lab_command(folder, port, ip, is_root, has_browser)
    if port is None and ip is None and (address := already_open(folder)):
        print(
            f"lesson: JupyterLab is open on this folder already (another one: PORT=, or --port):\n{address}"
        )
        return
    if port is not None:
        _check_free(port, ip)
    for line in notices(ip, is_root, has_browser):
        print(f"lesson: {line}", file=sys.stderr, flush=True)
    tools = str(Path(sys.executable).parent)  # `lesson` in Lab's terminal
    os.environ["PATH"] = os.pathsep.join([tools, os.environ.get("PATH", os.defpath)])
    os.execv(command[0], command)


def already_open(folder: Path) -> str | None:
    """The address, with its token, of a JupyterLab of this user that has the folder as its root and answers.

    One that was killed, as with its container, leaves its file behind, and another process may have its number.
    """
    from jupyter_server.serverapp import list_running_servers

    for server in list_running_servers():
        if Path(server["root_dir"]).resolve() == folder.resolve() and _answers(server):
            return f"{server['url']}lab/tree/{layout.FIRST}?token={server['token']}"
    return None


def _answers(server: dict[str, Any]) -> bool:
    status = f"{server['url']}api/status?token={server['token']}"
    try:
        with urllib.request.urlopen(status, timeout=ANSWER_SECONDS) as answer:
            return answer.status == HTTPStatus.OK
    except OSError:
        return False


def _check_free(port: int, ip: str | None) -> None:
    address = _address(ip) if ip is not None else "127.0.0.1"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does
        try:
            door.bind((address, port))
        except OSError as error:  # what else is wrong with it, Jupyter says
            if error.errno == errno.EADDRINUSE:
                raise CourseError(
                    f"port {port} is taken by another program: give another one, or none for the next that is free"
                ) from None


def _has_browser() -> bool:
    try:
        webbrowser.get()
    except webbrowser.Error:
        return False
    return True


def _address(ip: str) -> str:
    """An IP address in its plain form."""
    try:
        return str(ipaddress.ip_address({"localhost": "127.0.0.1", "*": "0.0.0.0"}.get(ip, ip)))
    except ValueError:
        raise CourseError(
            f"IP {ip!r} is no address: 0.0.0.0 listens on every network of this machine"
        ) from None
