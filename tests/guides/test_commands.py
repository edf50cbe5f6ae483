"""Every command in a document exists with its options, and every page with commands has a test that runs them."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
from typer.main import get_command

from hookseal.cli.commands import tree
from tests.guides.reader import ROOT, Command, commands, words
from tools.governance.report import names
from tools.governance.validate import FROM_SOURCE

pytestmark = pytest.mark.req("OPS-06")

PAGES = [
    name for name in names(ROOT) if name.endswith(".md") and name not in {"CHANGELOG.md", "docs/reference/commands.md"}
]
# The pages that `test_guides` follows command by command.
FOLLOWED = (
    "docs/api.md",
    "docs/guide/cookbook.md",
    "docs/guide/operator-events.md",
    "docs/guide/ordering.md",
    "docs/guide/publishing.md",
    "docs/guide/receiving.md",
    "docs/guide/retrying.md",
    "docs/guide/rotating.md",
    "docs/guide/running.md",
    "docs/guide/tracing.md",
    "docs/guide/troubleshooting.md",
    "docs/guide/upgrading.md",
    "docs/migration.md",
    "docs/pages.md",
)
# The tests that run the commands of the other pages: they need servers, users or a machine of their own.
ELSEWHERE = {
    "README.md": "tests/cli/test_readme.py::test_the_readme_runs_as_written",
    "docs/guide/aws.md": "tests/interop/test_providers.py::test_every_door_opens_with_every_provider",
    "docs/guide/gcp.md": "tests/interop/test_providers.py::test_every_door_opens_with_every_provider",
    "docs/guide/kms.md": "tests/cli/key/test_wrap.py::test_an_installation_begins_and_moves_with_wrapped_keys",
    "docs/guide/openbao.md": "tests/interop/test_providers.py::test_every_door_opens_with_every_provider",
    "docs/guide/providers.md": "tests/cli/secret/test_move.py::test_all_secrets_move_and_return",
    "docs/guide/svix.md": "tests/api/test_coming_from_svix.py::test_endpoints_move_with_their_secrets_and_ids",
    "docs/restore.md": "tests/restore/test_new_server.py::test_a_restored_installation_continues",
    "docs/runbook-keys.md": "tests/cli/test_audit_anchors.py::test_other_commands_read_the_output_of_heads",
    "docs/runbook.md": "tests/cli/test_replay.py::test_a_job_is_started_shown_and_cancelled",
    "docs/tutorial.md": "tests/cli/test_tutorial.py::test_the_tutorial_runs_as_written",
    "examples/django_app/README.md": "tests/browser/test_mounted.py::test_a_customer_of_a_product_adds_an_endpoint",
    "examples/fastapi_app/README.md": "tests/examples/test_fastapi_app.py::test_a_customer_manages_webhooks",
}


# A page for each thing that the requirement names.
PAGE_OF = {
    "canonical secrets contract": "docs/CANONICAL/SECRETS.md",
    "architecture": "docs/architecture.md",
    "life cycle": "docs/lifecycle.md",
    "settings and events reference (generated)": "docs/settings.md",
    "runbook per alert": "docs/runbook.md",
    "threat model": "docs/threat-model.md",
    "backup and restore": "docs/restore.md",
    "scaling plan": "docs/scaling.md",
    "decisions": "docs/decisions/README.md",
}
GENERATED = {
    "docs/settings.md",
    "docs/logs.md",
    "docs/metrics.md",
    "docs/outcomes.md",
    "docs/reference/calls.md",
    "docs/reference/commands.md",
}


def shown(page: str) -> list[Command]:
    """Return the commands of hookseal in the blocks of this page."""
    return [each for each in commands(page) if re.search(r"(?:^|[\s(=])hookseal ", each.text)]


def written(page: str) -> Iterator[str]:
    """Yield every command of hookseal on this page, in blocks and in sentences."""
    yield from (each.text for each in shown(page))
    text = (ROOT / page).read_text(encoding="utf-8")
    for found in re.findall(r"(?<!`)`((?:[A-Z_]+=\S+ )*hookseal [^`]+)`", text):
        yield re.sub(r"\s+", " ", found)


@cache
def root() -> Any:
    return get_command(tree(None))


def wrong(command: str) -> str | None:
    """Return what no such command has, or None."""
    given = words(command)
    if given is None:
        return None
    found = root()
    while given and (branches := getattr(found, "commands", None)) and not given[0].startswith("-"):
        if given[0] not in branches:
            return given[0]
        found = branches[given.pop(0)]
    known = {each for parameter in found.params for each in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}
    options = {each.partition("=")[0] for each in given if re.match(r"--[a-z]", each)}
    return next(iter(sorted(options - known)), None)


def test_each_thing_that_the_requirement_names_has_a_page() -> None:
    """What the code contains is generated from it."""
    [row] = re.findall(
        r"^\| OPS-06 \| \w+ \| `docs/`: (.+?);",
        (ROOT / "docs/requirements.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )

    assert list(PAGE_OF) == row.split(", ")
    assert [] == [page for page in PAGE_OF.values() if len((ROOT / page).read_text(encoding="utf-8").split()) < 200]
    assert GENERATED <= FROM_SOURCE.keys()


def test_every_command_exists_with_its_options() -> None:
    found = [(page, command, what) for page in PAGES for command in written(page) if (what := wrong(command))]

    assert [] == found


def test_a_wrong_command_is_found() -> None:
    assert "unknown" == wrong("hookseal unknown --json")
    assert "--unknown" == wrong("hookseal endpoint add --tenant acme --unknown=1")
    assert "shew" == wrong("HOOKSEAL_ENV=development hookseal endpoint shew | less")
    for right in ("hookseal up env", "hookseal delivery show ID --json", "hookseal --version", "hookseal audit heads"):
        assert wrong(right) is None, right


def test_each_page_with_commands_has_a_test_that_runs_them() -> None:
    """A page that is neither followed nor listed is named by a test of its own."""
    own = {
        each.name: each.read_text(encoding="utf-8")
        for each in (ROOT / "tests").rglob("test_*.py")
        if each.parent.name != "guides"
    }
    forgotten = [
        page
        for page in PAGES
        if shown(page) and page not in FOLLOWED and page not in ELSEWHERE
        if not any(f'"{page.rpartition("/")[2]}"' in text for text in own.values())
    ]

    assert [] == forgotten


@pytest.mark.parametrize("named", sorted(set(ELSEWHERE.values())))
def test_a_test_that_runs_commands_elsewhere_exists(named: str) -> None:
    file, _, test = named.partition("::")
    tree_of_file = ast.parse((ROOT / file).read_text(encoding="utf-8"))

    assert test in {each.name for each in tree_of_file.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)}
