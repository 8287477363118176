"""Generate gen/ (Python messages, services and their types) from proto/.

python -m tools.generate            writes gen/
python -m tools.generate --check    changes nothing; status 1 and a list if gen/ is not what proto/ gives
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def protoc(*options: str) -> None:
    """Run protoc with these options on every file below proto/."""
    sources = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "proto").rglob("*.proto"))
    plugins = Path(sys.executable).parent
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", "-Iproto", *options, *sources],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{plugins}{os.pathsep}{os.environ.get('PATH', '')}"},
        check=True,
    )


def generate(target: Path) -> None:
    """Fill the empty folder `target` with what protoc and mypy-protobuf make of every file below proto/."""
    protoc(
        f"--python_out={target}",
        f"--grpc_python_out={target}",
        f"--mypy_out=quiet:{target}",
        f"--mypy_grpc_out=quiet:{target}",
    )
    # Namespace packages would do for Python, but not for import-linter: it finds a root package by its __init__.py.
    for folder in (target, *target.rglob("*")):
        if folder.is_dir() and folder != target:
            (folder / "__init__.py").touch()


def files_below(folder: Path) -> dict[str, bytes]:
    """Content of each file below `folder` by its relative name; caches of the interpreter left out."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def drift(found: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """What differs, a line per file."""
    return [
        f"{name}: {'missing' if name not in found else 'of no .proto' if name not in wanted else 'out of date'}"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if gen/ is out of date")
    check = parser.parse_args().check
    gen = ROOT / "gen"
    with tempfile.TemporaryDirectory() as scratch:
        fresh = Path(scratch, "gen")
        fresh.mkdir()
        generate(fresh)
        differences = drift(files_below(gen), files_below(fresh))
        if check:
            for difference in differences:
                print(f"gen/{difference}")
            if differences:
                print("Run `make gen` and commit the result.")
            return 1 if differences else 0
        shutil.rmtree(gen, ignore_errors=True)
        shutil.copytree(fresh, gen)
    print(f"gen/: {len(files_below(gen))} files, {len(differences)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
