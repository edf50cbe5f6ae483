"""A release is made of a clean commit on main with a new version and its section of the changelog, and nothing else."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tools import release
from tools.records import ROOT
from tools.release import CannotRelease, differences, refusals, section
from tools.smoke import __main__ as smoke
from tools.smoke import released

pytestmark = pytest.mark.req("OPS-14", part="release")

COMMIT, OTHER = "a" * 40, "b" * 40
CHANGELOG: Final = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2026-12-01

### Added

- A thing.

## [0.1.0] - 2026-11-01

- All.
"""
LOCK: Final = """\
anyio==4.1.0 \\
    --hash=sha256:aa
    # via starlette
tzdata==2026.1 ; sys_platform == 'win32' \\
    --hash=sha256:bb
"""


def _refused(**changes: object) -> list[str]:
    given = {"version": "0.2.0", "tags": {"v0.1.0": OTHER}, "commit": COMMIT, "is_dirty": False, "is_landed": True}
    return list(refusals(**(given | changes)))  # type: ignore[arg-type]


def test_a_clean_commit_with_a_new_version_is_released() -> None:
    """A release that was tagged is made again from the same commit."""
    assert [] == _refused()
    assert [] == _refused(tags={"v0.2.0": COMMIT})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"is_dirty": True}, "uncommitted changes"),
        ({"is_landed": False}, "is not on main yet"),
        ({"tags": {"v0.2.0": OTHER}}, "0.2.0 was released from bbbbbbbbbbbb"),
    ],
)
def test_what_is_not_landed_is_refused(changes: Mapping[str, object], reason: str) -> None:
    """A tree with changes, a commit outside of main and a version that was released are refused, each by its reason."""
    (found,) = _refused(**changes)
    assert reason in found


def test_the_notes_are_the_section_of_the_version() -> None:
    assert "### Added\n\n- A thing." == section(CHANGELOG, "0.2.0")
    assert "- All." == section(CHANGELOG, "0.1.0")


@pytest.mark.parametrize(
    ("changelog", "reason"),
    [
        (CHANGELOG.replace("0.2.0", "0.3.0"), "no section"),
        (CHANGELOG.replace(" - 2026-12-01", ""), "no section"),
        (CHANGELOG.replace("### Added\n\n- A thing.\n", ""), "no section"),
        (CHANGELOG.replace("## [Unreleased]\n", "## [Unreleased]\n\n- Another thing.\n"), "under Unreleased"),
    ],
)
def test_a_missing_section_is_refused(changelog: str, reason: str) -> None:
    """A section of another version, one without a date or text, and changes that no release has, are refused."""
    with pytest.raises(CannotRelease, match=reason):
        section(changelog, "0.2.0")


def _sbom(**versions: str) -> str:
    components = [
        {"name": name, "version": version, "externalReferences": [{"hashes": [{"alg": "SHA-256", "content": "aa"}]}]}
        for name, version in versions.items()
    ]
    return json.dumps({"components": components})


def test_components_are_those_of_the_lock() -> None:
    """Each package is listed with its version and a hash, also one for another system; a difference is named."""
    whole = _sbom(anyio="4.1.0", tzdata="2026.1")
    assert [] == differences(whole, LOCK)
    assert ["tzdata: None, locked 2026.1", "tzdata: without a hash"] == differences(_sbom(anyio="4.1.0"), LOCK)
    assert ["anyio: 4.0.0, locked 4.1.0"] == differences(_sbom(anyio="4.0.0", tzdata="2026.1"), LOCK)
    assert ["anyio: without a hash", "tzdata: without a hash"] == differences(whole.replace("SHA-256", "MD5"), LOCK)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a clone on its main, in which the changes of now are a release that could be made."""
    folder = tmp_path_factory.mktemp("release") / "clone"
    folder.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "LICENSE", "README.md", "SECURITY.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "requirements"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "CHANGELOG.md").write_text(CHANGELOG.replace("0.1.0", "0.0.1").replace("0.2.0", "0.1.0"))
    _git(folder, "init", "--quiet", "--initial-branch", "main")
    _commit(folder)
    return folder


def _git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def _commit(folder: Path) -> None:
    _git(folder, "add", "--all", "--force")
    _git(folder, "-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "--message", "a release")


@pytest.mark.timeout(300)
def test_two_builds_are_equal(clone: Path, tmp_path: Path) -> None:
    """Wheel and source distribution are equal byte by byte when they are built twice, and have nothing uncommitted."""
    (clone / "src" / "hookseal" / "uncommitted.py").touch()
    try:
        names = release.twice(clone, tmp_path)
    finally:
        (clone / "src" / "hookseal" / "uncommitted.py").unlink()

    assert ["hookseal-0.1.0-py3-none-any.whl", "hookseal-0.1.0.tar.gz"] == names
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", tmp_path / names[0]], capture_output=True, check=True
    )
    assert b"hookseal/__init__.py" in listed.stdout
    assert b"uncommitted" not in listed.stdout


@pytest.mark.timeout(300)
def test_a_difference_is_refused(clone: Path, tmp_path: Path) -> None:
    """Two builds that differ are no release: here each has the folder in which it was made."""
    hook = clone / "hatch_build.py"
    _git(clone, "checkout", "--quiet", "-b", "with-its-folder")
    hook.write_text(hook.read_text().replace('"text": linked}', '"text": linked + self.root}'))
    _commit(clone)
    try:
        with pytest.raises(CannotRelease, match="two builds of one commit differ"):
            release.twice(clone, tmp_path)
    finally:
        _git(clone, "checkout", "--quiet", "main")
    assert [] == list(tmp_path.iterdir())


def test_the_state_of_the_tree_is_read_from_git(clone: Path) -> None:
    """A change, a branch beside main and a tag on another commit are found where git has them."""
    assert release._is_landed(clone)
    _git(clone, "checkout", "--quiet", "-b", "beside")
    (clone / "README.md").write_text("changed")
    try:
        with pytest.raises(CannotRelease, match="uncommitted changes"):
            release.release(clone, clone / "dist")
        _git(clone, "tag", "v0.1.0")
        _commit(clone)
        with pytest.raises(CannotRelease) as refused:
            release.release(clone, clone / "dist")
        assert ["is not on main yet", "was released from"] == [
            part for part in ("uncommitted", "is not on main yet", "was released from") if part in str(refused.value)
        ]
    finally:
        _git(clone, "checkout", "--quiet", "--force", "main")
        _git(clone, "tag", "--delete", "v0.1.0")


def test_the_sums_are_checked_by_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"2")
    text = release.sums(tmp_path)

    assert f"{hashlib.sha256(b'1').hexdigest()}  a\n" == text.splitlines(keepends=True)[0]
    checked = subprocess.run(
        ["sha256sum", "--check"], cwd=tmp_path, input=text, capture_output=True, text=True, check=True
    )
    assert "a: OK\nb: OK\n" == checked.stdout


def test_without_a_key_nothing_is_signed(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree whose git has no key says so, and makes no signature."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    (tmp_path / "SHA256SUMS").write_text("sums")

    assert "NOT SIGNED" in release.sign(clone, tmp_path / "SHA256SUMS")
    assert ["SHA256SUMS"] == [file.name for file in tmp_path.iterdir()]


def test_an_ssh_key_signs(clone: Path, tmp_path: Path) -> None:
    """The key that git signs with signs; the checks of docs/releasing.md refuse a changed file, and another signer."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("there is no ssh-keygen")
    dist, signers = tmp_path / "dist", tmp_path / "dist" / released.SIGNERS
    dist.mkdir()
    (dist / "wheel").write_text("1")
    (dist / release.SUMS).write_text(release.sums(dist))
    other, ours = (released.new_key(clone, tmp_path / name) for name in ("other", "ours"))
    try:
        assert "signed by the SSH key" in release.sign(clone, dist / release.SUMS)
    finally:
        _configured(clone, {"gpg.format": None, "user.signingkey": None})

    signers.write_text(ours)
    assert released.is_genuine(dist)
    assert 2 == released.changes_refused(dist)
    assert released.is_genuine(dist)
    signers.write_text(other)
    assert not released.is_genuine(dist)


def test_an_openpgp_key_signs(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same with a key of GnuPG."""
    if shutil.which("gpg") is None:
        pytest.skip("there is no gpg")
    home = Path("/tmp") / f"hookseal-gpg-{os.getpid()}"  # the path of the agent's socket may not be long
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    sums = tmp_path / "SHA256SUMS"
    sums.write_text("sums")
    try:
        options = ["--batch", "--passphrase", "", "--quick-generate-key", "maintainer@example.com", "ed25519", "sign"]
        subprocess.run(["gpg", *options], check=True, capture_output=True)
        _configured(clone, {"user.signingkey": "maintainer@example.com"})
        assert "signed by the OpenPGP key" in release.sign(clone, sums)
        verified = subprocess.run(["gpg", "--verify", f"{sums}.asc", sums], capture_output=True, check=False)
        assert 0 == verified.returncode, verified.stderr
    finally:
        _configured(clone, {"user.signingkey": None})
        subprocess.run(["gpgconf", "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)


def test_a_record_needs_a_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Uncommitted changes are refused before anything runs."""
    _git(tmp_path, "init", "--quiet")
    (tmp_path / "changed").touch()
    monkeypatch.setattr(smoke, "ROOT", tmp_path)

    with pytest.raises(SystemExit):
        smoke.main(["--record"])
    assert "a record needs a commit" in capsys.readouterr().err


def _configured(clone: Path, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        words = ("--unset", name) if value is None else (name, value)
        subprocess.run(["git", "-C", clone, "config", *words], check=False)
