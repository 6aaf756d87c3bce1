"""Pins what a Python service of the catalogue is made of: every package, its version, its files' digests.

    python3 xtask/lock.py FILE.lock [--only x86_64] [--without NAME] REQUIREMENT...

uv resolves for Linux on x86-64 and arm64 and for Python 3.11 to 3.13; only files of such machines are kept, so that
the list stays short. `--without` leaves a package out that a shared runtime brings. Nothing is downloaded but names.
"""

import pathlib
import subprocess
import sys
import tempfile
import tomllib

PYTHONS = ("cp311", "cp312", "cp313")
MARK = "sys_platform == 'linux' and implementation_name == 'cpython' and python_full_version < '3.14'"


def resolve(requirements, machines):
    environments = [f"{MARK} and platform_machine == '{machine}'" for machine in machines]
    project = f"""[project]
name = "lock"
version = "0"
requires-python = ">=3.11"
dependencies = {requirements!r}
[tool.uv]
environments = {environments!r}
"""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "pyproject.toml").write_text(project)
        command = "uv pip compile pyproject.toml --universal --python-version 3.11 --only-binary :all: -q --no-header"
        subprocess.run([*command.split(), "--format", "pylock.toml", "-o", "pylock.toml"], cwd=folder, check=True)
        return tomllib.loads((pathlib.Path(folder) / "pylock.toml").read_text())["packages"]


def fits(file, machines):
    """`name-version[-build]-PYTHON-ABI-PLATFORM.whl`"""
    python, abi, platform = file.removesuffix(".whl").rsplit("-", 3)[1:]
    is_linux = "manylinux" in platform or platform.startswith("linux_")
    of_machine = platform == "any" or (is_linux and any(machine in platform for machine in machines))
    of_python = "py3" in python or any(version in python for version in PYTHONS) or abi == "abi3"
    return of_machine and of_python and not abi.endswith("t")


def marker(package, machines):
    """Without what is true wherever the lock is used."""
    text = package.get("marker", "")
    always = ("python_full_version >= '3.9' and ", "python_full_version >= '3.11' and ", "python_full_version < '3.14' and ",
              "implementation_name == 'cpython' and ", "platform_python_implementation != 'PyPy' and ")
    for clause in always:
        text = text.replace(clause, "")
    everywhere = " or ".join(f"(platform_machine == '{machine}' and sys_platform == 'linux')" for machine in sorted(machines))
    return "" if text in ("", everywhere, everywhere.strip("()")) else f" ; {text}"


def main(arguments):
    target, machines, without, requirements = arguments[0], ["x86_64", "aarch64"], [], []
    rest = iter(arguments[1:])
    for word in rest:
        if word == "--only":
            machines = [next(rest)]
        elif word == "--without":
            without.append(next(rest))
        else:
            requirements.append(word)
    lines = [f"# Made by: python3 xtask/lock.py {' '.join(arguments)}"]
    for package in resolve(requirements, machines):
        if package["name"] in without:
            continue
        files = [w["url"].rsplit("/", 1)[1] for w in package.get("wheels", [])]
        kept = sorted(w["hashes"]["sha256"] for w, f in zip(package.get("wheels", []), files) if fits(f, machines))
        if not kept:
            sys.exit(f"{package['name']} {package['version']} has no file for these machines: {files}")
        hashes = [f"    --hash=sha256:{digest}" for digest in kept]
        lines.append(" \\\n".join([f"{package['name']}=={package['version']}{marker(package, machines)}", *hashes]))
    pathlib.Path(target).write_text("\n".join(lines) + "\n")
    print(f"{target}: {len(lines) - 1} packages")


main(sys.argv[1:])
