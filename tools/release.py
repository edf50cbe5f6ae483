"""`make release`: the files of a release, in dist/, from the commit that is checked out. It publishes nothing.

Wheel and source distribution are built twice, from two exports of the commit in different folders, and must be equal
byte by byte. Beside them are a list of components (CycloneDX) of each lock that an installation is made from, the
section of CHANGELOG.md, the checksums of all that, and their signature if git has a signing key.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from tools.records import ROOT
from tools.smoke import package

NOTES: Final = "RELEASE_NOTES.md"
SUMS: Final = "SHA256SUMS"
NAMESPACE: Final = "hookseal-release"  # of a signature by ssh-keygen: it is valid for nothing else
LOCKS: Final = ("base", "migrate", "aws", "gcp")  # what deploy/ and `pip install` can be installed from
_SECTION: Final = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<day>\d{4}-\d\d-\d\d))?$", re.MULTILINE)
_CYCLONEDX: Final = ROOT / ".release" / "bin" / "cyclonedx-py"


class CannotRelease(Exception):
    """The release is refused. The message says why, and what to do."""


# What a release needs, decided from texts.


def section(changelog: str, version: str) -> str:
    """Return the section of that version, without its heading.

    Raises `CannotRelease` if it is missing, has no date or no text, or if something is still unreleased.
    """
    found = list(_SECTION.finditer(changelog))
    ends = [match.start() for match in found[1:]] + [len(changelog)]
    texts = {match["version"]: changelog[match.end() : end].strip() for match, end in zip(found, ends, strict=True)}
    days = {match["version"]: match["day"] for match in found}
    if not texts.get(version) or days[version] is None:
        raise CannotRelease(
            f"CHANGELOG.md has no section `## [{version}] - YYYY-MM-DD` with text: give the one of what is unreleased "
            "this heading, under a new and empty `## [Unreleased]`"
        )
    if texts.get("Unreleased"):
        raise CannotRelease(f"CHANGELOG.md has changes under Unreleased: move them to the section of {version}")
    return texts[version]


def refusals(*, version: str, tags: Mapping[str, str], commit: str, is_dirty: bool, is_landed: bool) -> Iterator[str]:
    """Yield why no release can be made of this commit. `tags` has the commit of each tag."""
    if is_dirty:
        yield "the tree has uncommitted changes: commit them, or put them aside"
    if not is_landed:
        yield f"the commit with the version {version} is not on main yet: land it first"
    tagged = tags.get(f"v{version}", commit)
    if tagged != commit:
        yield f"{version} was released from {tagged[:12]}: raise the version in pyproject.toml"


def components(lock: str) -> dict[str, str]:
    """Return the name and version of every package of a lock."""
    lines = (line.removesuffix("\\") for line in lock.splitlines() if re.match(r"[a-z0-9]", line))
    pins = [Requirement(line) for line in lines]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


def differences(sbom: str, lock: str) -> list[str]:
    """Return how a list of components differs from the lock that it was made of, package by package."""
    listed = json.loads(sbom)["components"]
    have, want = {each["name"].lower(): each.get("version") for each in listed}, components(lock)
    hashed = {each["name"].lower() for each in listed if "sha256" in json.dumps(each).lower().replace("-", "")}
    names = sorted({*have, *want})
    found = [f"{name}: {have.get(name)}, locked {want.get(name)}" for name in names if have.get(name) != want.get(name)]
    return found + [f"{name}: without a hash" for name in names if name not in hashed]


# What it does.


def release(root: Path, to: Path) -> list[str]:
    """Write the files of the release of HEAD into the folder, in place of what is there; return the lines to print.

    Raises `CannotRelease`.
    """
    version = str(tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"])
    commit = _git(root, "rev-parse", "HEAD")
    refused = refusals(
        version=version,
        tags=_tags(root),
        commit=commit,
        is_dirty=bool(_git(root, "status", "--porcelain")),
        is_landed=_is_landed(root),
    )
    if reasons := list(refused):
        raise CannotRelease("\n".join(reasons))
    notes = section((root / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "dist"
        folder.mkdir()
        lines = [f"{', '.join(twice(root, folder))}: built twice, and equal"]
        lines += [f"{sbom(root, lock, folder, version)}: as requirements/{lock}.txt" for lock in LOCKS]
        (folder / NOTES).write_text(f"# hookseal {version}\n\n{notes}\n", encoding="utf-8")
        (folder / SUMS).write_text(sums(folder), encoding="utf-8")
        lines.append(f"{SUMS}: {sign(root, folder / SUMS)}")
        shutil.rmtree(to, ignore_errors=True)
        shutil.copytree(folder, to)
    return [f"hookseal {version} of {commit}", *lines]


def twice(root: Path, folder: Path) -> list[str]:
    """Build wheel and source distribution from two exports of HEAD, and put them into the folder if they are equal.

    Raises `CannotRelease` if they are not, or if an index would refuse their metadata.
    """
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as another:
        built = [build(root, "HEAD", Path(each)) for each in (one, another)]
        first, second = ({file.name: file.read_bytes() for file in files} for files in built)
        if first != second:
            raise CannotRelease(f"two builds of one commit differ: {sorted({*first, *second})}")
        package.check_metadata(*built[0])
        for file in built[0]:
            shutil.copy(file, folder)
        return sorted(first)


def build(root: Path, commit: str, below: Path) -> tuple[Path, Path]:
    """Build source distribution and wheel of an export of that commit: nothing that is not committed gets into them."""
    tree, made = below / "tree", below / "made"
    archive = below / "tree.tar"
    archive.write_bytes(_run(root, "git", "archive", commit))
    with tarfile.open(archive) as members:
        members.extractall(tree, filter="data")
    return package.build(made, tree)


def sbom(root: Path, lock: str, folder: Path, version: str) -> str:
    """Write the components of a lock as CycloneDX, compared with the lock, and return the name of the file.

    Raises `CannotRelease` if a package is missing, or has another version or no hash.
    """
    source, file = root / "requirements" / f"{lock}.txt", folder / f"hookseal-{version}-{lock}.cdx.json"
    options = ("--output-reproducible", "--output-format", "JSON", "--spec-version", "1.6", "--mc-type", "library")
    command = (str(_CYCLONEDX), "requirements", *options, "--pyproject", str(root / "pyproject.toml"))
    _run(root, *command, "--output-file", str(file), str(source))
    found = differences(file.read_text(encoding="utf-8"), source.read_text(encoding="utf-8"))
    if found:
        raise CannotRelease(f"{file.name} differs from requirements/{lock}.txt: {'; '.join(found)}")
    return file.name


def sums(folder: Path) -> str:
    """Return the SHA-256 of each file in the folder, as `sha256sum --check` reads them."""
    return "".join(
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in sorted(folder.iterdir())
    )


def sign(root: Path, file: Path) -> str:
    """Sign the file with the key that git signs with, beside it; return what was done.

    Without `user.signingkey` nothing is signed. Raises `CannotRelease` if the key does not sign.
    """
    key = _config(root, "user.signingkey")
    if not key:
        return "NOT SIGNED: git has no user.signingkey here"
    if _config(root, "gpg.format") == "ssh":
        _run(root, "ssh-keygen", "-q", "-Y", "sign", "-f", str(Path(key).expanduser()), "-n", NAMESPACE, str(file))
        return f"signed by the SSH key, {file.name}.sig"
    program = _config(root, "gpg.program") or "gpg"
    _run(root, program, "--batch", "--yes", "--local-user", key, "--armor", "--detach-sign", str(file))
    return f"signed by the OpenPGP key {key}, {file.name}.asc"


def _is_landed(root: Path) -> bool:
    """Return whether HEAD is on main: that of the origin, or, in a clone without one, the branch."""
    branches = _git(root, "for-each-ref", "--contains", "HEAD", "--format=%(refname)").splitlines()
    has_origin = bool(_git(root, "for-each-ref", "refs/remotes/origin/main"))
    return ("refs/remotes/origin/main" if has_origin else "refs/heads/main") in branches


def _tags(root: Path) -> dict[str, str]:
    lines = _git(
        root, "for-each-ref", "refs/tags", "--format=%(refname:short) %(objectname) %(*objectname)"
    ).splitlines()
    return {name: rest[-1] for name, *rest in map(str.split, lines)}


def _config(root: Path, name: str) -> str:
    ended = subprocess.run(["git", "-C", str(root), "config", name], capture_output=True, text=True, check=False)
    return ended.stdout.strip()


def _git(root: Path, *arguments: str) -> str:
    return _run(root, "git", *arguments).decode().strip()


def _run(at: Path, *command: str) -> bytes:
    """Return the standard output. Raises `CannotRelease` with the errors if the command fails."""
    try:
        ended = subprocess.run(command, cwd=at, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError as error:
        raise CannotRelease(f"{command[0]} is not here: {error}") from error
    if ended.returncode:
        raise CannotRelease(f"{' '.join(command[:3])} ended with {ended.returncode}: {ended.stderr.decode().strip()}")
    return ended.stdout


def main(arguments: Iterable[str]) -> int:
    """Return 0 and list the files, or 1 and say why there is no release."""
    if list(arguments):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        lines = release(ROOT, ROOT / "dist")
    except (CannotRelease, RuntimeError) as error:
        print("\n".join(f"make release: {line}" for line in str(error).splitlines()), file=sys.stderr)
        return 1
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
