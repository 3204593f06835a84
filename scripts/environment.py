"""Makes and fills the virtual environment that the Makefile works in. Needs nothing but the standard library.

    python environment.py create VENV [--torch auto|pinned]   the environment, torch, build and run-time needs
    python environment.py extra VENV NAME                     one optional group of pyproject.toml
    python environment.py check VENV                          fails if another python made VENV

With `--torch auto` a torch >= 2.11 that the running python already has is used: VENV then sees the packages
of that python and gets only what they lack. Otherwise VENV stands alone and gets what constraints.txt pins.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10: pip brings the same reader
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
OLDEST_TORCH = (2, 11)
# The same for python3 and python3.12 of one installation.
IDENTITY = f"{sys.prefix} {sys.version.split()[0]}"


def say(text: str) -> None:
    print(f"aesg: {text}", flush=True)


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def venv_python(venv: Path) -> Path:
    return venv / "bin" / "python"


def has_pip(venv: Path) -> bool:
    """Whether VENV is a working environment."""
    python = venv_python(venv)
    return (
        python.exists()
        and subprocess.run([python, "-m", "pip", "--version"], capture_output=True).returncode == 0
    )


def link_file(venv: Path) -> Path:
    """The file in VENV that names the package directories of the python whose torch is used."""
    folder = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return venv / "lib" / folder / "site-packages" / "aesg_parent.pth"


def recorded_maker(venv: Path) -> tuple[str, str] | None:
    """(executable, identity) of the python that made VENV, None when nothing says."""
    try:
        executable, identity = (venv / "made-by.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    return executable, identity


def pip_install(venv: Path, requirements: list[str], *options: str) -> None:
    """Installs `requirements` as VENV/constraints.txt pins them."""
    command = [venv_python(venv), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    command += ["--constraint", venv / "constraints.txt", *options, *requirements]
    if subprocess.run([str(word) for word in command]).returncode:
        sys.exit(f"aesg: pip could not install {' '.join(requirements)} (its own words stand above)")


def check_compiler() -> None:
    """Stops before anything is downloaded when the extension could not be built afterwards."""
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        sys.exit(
            f"aesg: expected a C++17 compiler, found no '{compiler}' (install g++ or clang++, or set CXX)"
        )
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.exists():
        sys.exit(f"aesg: expected {header}: install the development files of this python (python3-dev)")


def present_torch() -> str | None:
    """Version of a new enough torch in the running python, None without one."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or (int(match[1]), int(match[2])) < OLDEST_TORCH:
        say(f"torch {version} of {sys.executable} is older than 2.11 and is left alone")
        return None
    return version


def package_directories() -> list[str]:
    """Where the running python keeps its installed packages."""
    return [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]


def name_of(requirement: str) -> str:
    """The package a requirement or a line of constraints.txt is about."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0]).lower()


def constraints(torch: str | None) -> str:
    """constraints.txt; beside a torch that is there already, less the pins of what is there too."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if torch is None:
        return "\n".join(lines) + "\n"
    there = {name_of(name) for d in importlib.metadata.distributions() if (name := d.metadata["Name"])}
    free = there & {name_of(requirement) for requirement in project()["project"]["dependencies"]}
    return "\n".join([*(line for line in lines if name_of(line) not in free), f"torch=={torch}"]) + "\n"


def create(venv: Path, torch_wish: str) -> None:
    """Makes VENV unless it works already, then installs torch first and the needs of pyproject.toml."""
    maker = recorded_maker(venv)
    if maker is not None and maker[0] != sys.executable and maker[1] != IDENTITY and Path(maker[0]).exists():
        os.execv(maker[0], [maker[0], *sys.argv])  # renewed by the python that made it
    if venv.resolve() == Path(sys.prefix).resolve():
        sys.exit(f"aesg: PYTHON is the python of {venv} itself: name the python it is to be made from")
    check_compiler()
    torch = present_torch() if torch_wish == "auto" else None
    if not has_pip(venv):
        say(f"making {venv} with {sys.executable} ({sys.version.split()[0]})")
        if subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv)]).returncode:
            sys.exit("aesg: could not make a virtual environment: is the venv module there (python3-venv)?")
    # Not --system-site-packages: that would show the packages of the base python, not of a venv made from it.
    link = link_file(venv)
    link.unlink(missing_ok=True)
    if torch is not None:
        link.write_text(
            "".join(f"import site; site.addsitedir({path!r})\n" for path in package_directories())
        )
    (venv / "constraints.txt").write_text(constraints(torch), encoding="utf-8")
    (venv / "made-by.txt").write_text(f"{sys.executable}\n{IDENTITY}\n", encoding="utf-8")

    if torch is not None:
        say(f"using torch {torch} of {sys.executable}")
    else:
        say("installing torch as pinned in constraints.txt")
        pip_install(venv, ["torch"])
    table = project()
    pip_install(venv, [*table["build-system"]["requires"], *table["project"]["dependencies"]])


def check(venv: Path) -> None:
    """Fails when VENV was made by another python than the running one."""
    maker = recorded_maker(venv)
    if maker is not None and maker[1] != IDENTITY and venv.resolve() != Path(sys.prefix).resolve():
        sys.exit(
            f"aesg: {venv} was made by {maker[0]}, PYTHON is {sys.executable}: `make distclean` removes it"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("create")
    one.add_argument("venv", type=Path)
    one.add_argument("--torch", choices=("auto", "pinned"), default="auto")
    two = verbs.add_parser("extra")
    two.add_argument("venv", type=Path)
    two.add_argument("name")
    three = verbs.add_parser("check")
    three.add_argument("venv", type=Path)
    args = parser.parse_args()
    if args.verb == "create":
        create(args.venv, args.torch)
    elif args.verb == "extra":
        # All of them into VENV, also what another python shows to it: their commands must stand in VENV/bin.
        options = ["--ignore-installed"] if link_file(args.venv).exists() else []
        pip_install(args.venv, project()["project"]["optional-dependencies"][args.name], *options)
    else:
        check(args.venv)


if __name__ == "__main__":
    main()
