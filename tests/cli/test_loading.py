"""Commands load only the modules that they need, since loading takes longer than most commands run."""

import pytest

from hookseal.admin.admin import GROUPS
from hookseal.cli import direct
from tests.cli.command import Ended, python
from tests.cli.installation import Begun
from tests.cli.listeners import closed_port

_MACHINERY = {"aiohttp", "asyncpg", "arq", "redis", "cryptography"}
_PARSER = {"typer", "rich", "pydantic", "structlog"}


def loaded(ended: Ended) -> set[str]:
    """Return every module that the process loaded, as `-X importtime` reports them."""
    assert 0 == ended.code, ended.err
    return modules(ended)


def modules(ended: Ended) -> set[str]:
    """Return the same of a process with any exit code."""
    return {line.rpartition("|")[2].strip() for line in ended.err.splitlines() if line.startswith("import time:")}


def test_some_words_need_no_parser(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version`, and `check` as probes run it, are answered without the parser, with and without `--json`."""
    url = f"http://127.0.0.1:{closed_port()}"
    for words, code in (
        (["--version"], 0),
        (["--version", "--json"], 0),
        (["--json", "--version"], 0),
        (["check", "--url", url], 69),
        (["check", "--json", f"--url={url}"], 69),
        (["check", "--help"], None),
        (["db", "status"], None),
    ):
        assert code == direct.run_command(words), words
    assert url in capsys.readouterr().err


@pytest.mark.req("OPS-01")
@pytest.mark.parametrize(("words", "code"), [(("--json", "--version"), 0), (("check",), 69)])
async def test_version_and_check_load_little(words: tuple[str, ...], code: int) -> None:
    """They load nothing of what parses commands, and no machinery; a probe runs `check` every few seconds."""
    ended = await python("-X", "importtime", "-m", "hookseal", *words, HOOKSEAL_HEALTH_PORT=str(closed_port()))

    assert (code, set()) == (ended.code, modules(ended) & (_PARSER | _MACHINERY))
    assert code or "http.client" not in modules(ended)


@pytest.mark.req("UX-01", part="loading")
async def test_the_import_loads_nothing() -> None:
    """An application that imports hookseal pays for what it uses, once it uses it."""
    found = loaded(await python("-X", "importtime", "-c", "import hookseal"))

    assert {"hookseal"} == {name for name in found if name.partition(".")[0] == "hookseal"}
    assert set() == found & (_PARSER | _MACHINERY)


@pytest.mark.req("UX-01", part="loading")
async def test_the_version_loads_nothing() -> None:
    """Neither a library nor what prints the results of commands, or asks which packages are installed."""
    found = loaded(await python("-X", "importtime", "-m", "hookseal", "--version"))
    ours = {"hookseal", *(f"hookseal.{name}" for name in ("cli", "cli.direct", "cli.interrupted"))}

    assert ours | {"hookseal.ground", "hookseal.ground.version"} == {each for each in found if "hookseal" in each}
    assert set() == found & (_PARSER | _MACHINERY | {"msgspec", "importlib.metadata"})


@pytest.mark.req("UX-01", part="redis")
async def test_only_the_shell_of_a_worker_loads_arq() -> None:
    """Every command, `up`, the API, the pages, the Publisher and the engine itself run where there is no arq."""
    modules = "cli.commands demo.up demo.script api.serving pages.serving client queue.rings worker.run worker.doctor"
    imports = "\n".join(f"import hookseal.{name}" for name in modules.split())
    code = f"import sys\nsys.modules['arq'] = None\n{imports}\nhookseal.cli.commands.tree(None)"

    assert "redis" in loaded(await python("-X", "importtime", "-c", code))


@pytest.mark.parametrize("words", [("key", "status"), ("endpoint", "list", "--tenant", "acme")])
async def test_a_reading_command_loads_no_transport(words: tuple[str, ...], begun: Begun) -> None:
    """A command that only reads PostgreSQL does not load what sends requests."""
    found = loaded(await python("-X", "importtime", "-m", "hookseal", *words, **begun.settings))

    assert {"asyncpg", "cryptography"} == found & _MACHINERY


@pytest.mark.req("OPS-15", part="status")
async def test_the_status_loads_what_it_reads_and_prints(begun: Begun) -> None:
    """Neither what changes anything, nor what unlocks secrets, writes logs, draws on terminals, or checks arguments."""
    found = loaded(await python("-X", "importtime", "-m", "hookseal", "status", **begun.settings))
    groups = {f"hookseal.admin.{module}" for module, _ in GROUPS.values()}
    others = {"arguments", "translation", *(f"results.{each}" for each in ("endpoints", "deliveries", "keys"))}
    assert "hookseal.dispatcher.store.status" in found
    assert set() == found & (groups | {f"hookseal.admin.{each}" for each in others})
    assert set() == found & {"hookseal.operations", "hookseal.secrets.boot", "hookseal.dispatcher.http.trust"}
    assert set() == found & {"structlog", "rich.console", "cryptography.x509", "tenacity", "http.client"}
