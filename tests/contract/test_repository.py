"""What the repository's files may and must say."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]

REGISTRY = re.compile(r"index-" + r"url|https?://[^ ]*/(?:simple|packages|-/|debian|maven2|@v)")
HOME = re.compile(r"/(?:root|home/[a-z]+|Users/[A-Za-z]+)/")


def committed_files() -> list[Path]:
    """What is, or would be, committed."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[Path, str]]:
    found = []
    for file in committed_files():
        try:
            found.append((file.relative_to(ROOT), file.read_text()))
        except UnicodeDecodeError:
            continue  # binary
    return found


def test_no_file_names_a_package_registry_or_a_path_of_someones_machine() -> None:
    offences = [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if REGISTRY.search(line) or HOME.search(line) or f"{ROOT}/" in line
    ]

    assert offences == []


@pytest.mark.parametrize(
    "line",
    [
        "--index-" + "url x",
        "https://registry.example/" + "simple/rich/",
        "see /" + "root/x",
        "/home/" + "jo/orderstream",
    ],
)
def test_the_patterns_find_what_they_are_for(line: str) -> None:
    assert REGISTRY.search(line) or HOME.search(line)


def pinned(file: str) -> dict[str, tuple[str, bool]]:
    """Version and whether hashes follow, by package name."""
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)[^\n]*\\\n    --hash=(sha256)", (ROOT / file).read_text(), re.MULTILINE)
    return {name: (version, digest == "sha256") for name, version, digest in pins}


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_with_its_hashes(file: str) -> None:
    requirements = re.findall(r"^([a-z0-9-]+)\S*", (ROOT / file).read_text(), re.MULTILINE)

    assert sorted(requirements) == sorted(pinned(file))


def test_the_pinned_requirements_are_what_pyproject_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runtime, development = pinned("requirements.txt"), pinned("requirements-dev.txt")
    groups = project["dependency-groups"]

    for wanted, pins in (
        (project["project"]["dependencies"] + groups["build"] + groups["demo"], runtime),
        (groups["dev"], development),
    ):
        for requirement in map(Requirement, wanted):
            version, _ = pins[requirement.name]
            assert requirement.specifier.contains(version), requirement
    assert runtime.items() <= development.items()


def test_local_links_of_the_documents_lead_somewhere() -> None:
    broken = [
        f"{name}: {target}"
        for name, text in texts()
        if name.suffix == ".md"
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
        if "://" not in target and not (ROOT / name.parent / target).exists()
    ]

    assert broken == []
