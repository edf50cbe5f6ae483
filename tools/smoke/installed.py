"""Tries hookseal where only the package and its dependencies are installed: publishes, verifies, names what is missing.

It runs in an environment of its own, outside of the repository, with the url of a migrated database as its argument.
"""

import asyncio
import ssl
import subprocess
import sys
from importlib.util import find_spec

import hookseal
from hookseal import Publisher
from hookseal.ground.tls import verifying_context
from hookseal.producers import EventFields
from hookseal.receiver import verify

# The example of the specification of Standard Webhooks.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105 -- public
BODY = b'{"test": 2432232314}'
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
NOT_BROUGHT = ("aiohttp", "arq", "redis", "typer", "uvloop")


async def publish(url: str) -> str:
    """Publish an event, and return its id."""
    event: EventFields = {"tenant_id": "acme", "event_type": "smoke.tested", "data": {"python": sys.version}}
    async with Publisher.connect(url, "redis://127.0.0.1:1/0") as publisher:  # nothing rings without the package redis
        published = await publisher.publish(**event)
    require(published.is_committed, "the event is not stored")
    return published.event_id


def require(condition: object, message: str) -> None:
    """End with this message unless the first argument is true."""
    if not condition:
        sys.exit(message)


def run(*arguments: str) -> tuple[int, str]:
    """Run the command, and return its exit code and its output."""
    command = [sys.executable, "-m", "hookseal", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def main() -> None:
    """Try each part."""
    brought = [name for name in NOT_BROUGHT if find_spec(name)]
    require(not brought, f"the package brings {brought}")
    require("site-packages" in (hookseal.__file__ or ""), "this is not the installed package")
    event_id = asyncio.run(publish(sys.argv[1]))
    require(verify(BODY, HEADERS, [SECRET], now=1_614_265_330).delivery_id, "the request is not verified")
    require((0, f"hookseal {hookseal.__version__}\n") == run("--version"), "there is no version")
    is_strict = verifying_context(None).verify_flags & ssl.VERIFY_X509_STRICT
    require(not is_strict, "this Python refuses certificates that others accept")
    missing = "hookseal: typer is not installed: the command hookseal needs `pip install 'hookseal[cli]'`\n"
    require((78, missing) == (answer := run("worker")), f"the command says {answer}")
    print(f"Python {sys.version.split()[0]}: published {event_id} and verified a request")


if __name__ == "__main__":
    main()
