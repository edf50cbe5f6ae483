"""The examples of docs/guide/verifying.md that can be run here accept a signed request, and refuse an altered one."""

import asyncio
import json
import re
from asyncio.subprocess import PIPE
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from hookseal.secrets.core.signing import generate_signing_secret
from tests.interop.node_modules import installed

PAGE: Final = Path(__file__).parents[2] / "docs" / "guide" / "verifying.md"
BODY: Final = '{"type":"invoice.paid","data":{"total":"12.50 €"}}'


def example(heading: str) -> str:
    """Return the first block of code under this heading."""
    found = re.search(
        rf"^## {heading}.*?^```\w+\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return found.group(1)


def signed(secret: str) -> dict[str, str]:
    """Return the headers of a request with this body in an overlap: the first signature is by another secret."""
    now = datetime.now(UTC)
    signatures = [Webhook(key).sign("d1", now, BODY) for key in (generate_signing_secret().reveal().decode(), secret)]
    return {
        "webhook-id": "d1",
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def test_the_documented_python_code_verifies() -> None:
    secret = generate_signing_secret().reveal().decode()
    names: dict[str, Any] = {}
    exec(example("Python"), names)  # noqa: S102 -- our own page

    assert json.loads(BODY) == names["received"](BODY.encode(), signed(secret), secret)
    with pytest.raises(WebhookVerificationError):
        names["received"](BODY.replace("12", "13").encode(), signed(secret), secret)


async def test_the_documented_javascript_code_verifies() -> None:
    folder = await asyncio.to_thread(installed)
    secret = generate_signing_secret().reveal().decode()
    arguments = [[body, signed(secret), secret] for body in (BODY, BODY.replace("12", "13"))]
    code = f"""{example("JavaScript and TypeScript")}
    const tried = ([body, headers, secret]) => {{
      try {{ return received(Buffer.from(body), headers, secret).type; }} catch (error) {{ return error.name; }}
    }};
    console.log(JSON.stringify({json.dumps(arguments)}.map(tried)));"""
    process = await asyncio.create_subprocess_exec(
        *("node", "--input-type=module", "--eval", code), cwd=folder, stdout=PIPE, stderr=PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)

    assert b"" == err
    assert ["invoice.paid", "WebhookVerificationError"] == json.loads(out)
