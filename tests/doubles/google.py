"""Google Secret Manager as a server in the tests: it speaks the real protocol, in the official client's messages.

It keeps the rules that matter to a client: secrets are created once, versions are numbered from 1 and never change,
a checksum that does not match is refused, a disabled or destroyed version is not given out. It is not Google: it has no
permissions, no quotas and no replication.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import google_crc32c
import grpc
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.cloud.secretmanager_v1 import types
from google.protobuf import empty_pb2  # type: ignore[import-untyped]

from tests.doubles.certificates import authority, issued
from tests.doubles.egress_proxy import proxying
from tests.doubles.serving import serving

_HOST: Final = "secretmanager.googleapis.com"
_SERVICE: Final = "google.cloud.secretmanager.v1.SecretManagerService"
PROJECT: Final = "tests"
_NUMBER: Final = "1234567890"  # of the project, which answers have in place of its id


@dataclass
class _Kept:
    labels: dict[str, str]
    versions: list[bytes] = field(default_factory=list)
    states: dict[int, Any] = field(default_factory=dict)


class GoogleSecrets:
    """The secrets of a project. `before` is called with each method and request, and may raise or change the answer."""

    def __init__(self) -> None:
        self.secrets: dict[str, _Kept] = {}
        self.calls: list[str] = []
        self.server: grpc.aio.Server | None = None
        self.port = 0
        self.fault: Callable[[str, grpc.aio.ServicerContext[Any, Any]], Any] | None = None
        self.alter_answer: Callable[[types.AccessSecretVersionResponse], None] | None = None

    async def stop(self) -> None:
        """Stop to answer; what is kept stays."""
        if self.server is not None:
            await self.server.stop(None)

    async def create_secret(self, request: types.CreateSecretRequest, context: Any) -> types.Secret:
        name = f"{request.parent}/secrets/{request.secret_id}"
        if name in self.secrets:
            await context.abort(grpc.StatusCode.ALREADY_EXISTS, "it exists")
        self.secrets[name] = _Kept(labels=dict(request.secret.labels))
        return types.Secret(name=_answered(name), labels=request.secret.labels)

    async def get_secret(self, request: types.GetSecretRequest, context: Any) -> types.Secret:
        return types.Secret(name=_answered(request.name), labels=(await self._of(request.name, context)).labels)

    async def delete_secret(self, request: types.DeleteSecretRequest, context: Any) -> empty_pb2.Empty:
        await self._of(request.name, context)
        del self.secrets[request.name]
        return empty_pb2.Empty()

    async def add_secret_version(self, request: types.AddSecretVersionRequest, context: Any) -> types.SecretVersion:
        kept = await self._of(request.parent, context)
        data = request.payload.data
        if request.payload.data_crc32c != google_crc32c.value(data) or not 1 <= len(data) <= 65_536:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "checksum or size")
        kept.versions.append(data)
        number = len(kept.versions)
        kept.states[number] = types.SecretVersion.State.ENABLED
        return types.SecretVersion(name=_answered(f"{request.parent}/versions/{number}"))

    async def access_secret_version(
        self, request: types.AccessSecretVersionRequest, context: Any
    ) -> types.AccessSecretVersionResponse:
        secret, _, number = request.name.partition("/versions/")
        kept = await self._of(secret, context)
        if not number.isdecimal() or int(number) > len(kept.versions):
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such version")
        if kept.states[int(number)] is not types.SecretVersion.State.ENABLED:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "it is not enabled")
        data = kept.versions[int(number) - 1]
        answer = types.AccessSecretVersionResponse(
            name=_answered(request.name), payload={"data": data, "data_crc32c": google_crc32c.value(data)}
        )
        if self.alter_answer is not None:
            self.alter_answer(answer)
        return answer

    def handler(self) -> grpc.GenericRpcHandler:
        methods: dict[str, tuple[Any, Any, Any]] = {
            "CreateSecret": (self.create_secret, types.CreateSecretRequest, types.Secret.serialize),
            "GetSecret": (self.get_secret, types.GetSecretRequest, types.Secret.serialize),
            "DeleteSecret": (self.delete_secret, types.DeleteSecretRequest, empty_pb2.Empty.SerializeToString),
            "AddSecretVersion": (
                self.add_secret_version,
                types.AddSecretVersionRequest,
                types.SecretVersion.serialize,
            ),
            "AccessSecretVersion": (
                self.access_secret_version,
                types.AccessSecretVersionRequest,
                types.AccessSecretVersionResponse.serialize,
            ),
        }
        return grpc.method_handlers_generic_handler(
            _SERVICE,
            {
                name: grpc.unary_unary_rpc_method_handler(
                    self._faulty(name, answer),
                    request_deserializer=request.deserialize,
                    response_serializer=written,
                )
                for name, (answer, request, written) in methods.items()
            },
        )

    def _faulty(self, name: str, answer: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        async def answered(request: Any, context: Any) -> Any:
            self.calls.append(name)
            if self.fault is not None:
                await self.fault(name, context)
            return await answer(request, context)

        return answered

    async def _of(self, name: str, context: Any) -> _Kept:
        if name not in self.secrets:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such secret")
        return self.secrets[name]


def _answered(name: str) -> str:
    return name.replace(f"projects/{PROJECT}/", f"projects/{_NUMBER}/")


@asynccontextmanager
async def google_secrets(
    secrets: GoogleSecrets | None = None, port: int = 0, *, tls: grpc.ServerCredentials | None = None
) -> AsyncIterator[tuple[GoogleSecrets, int]]:
    """Run the server, by default an empty one on a free port; give what it keeps, and the port."""
    secrets = secrets or GoogleSecrets()
    secrets.server = grpc.aio.server()
    secrets.server.add_generic_rpc_handlers([secrets.handler()])
    address = f"127.0.0.1:{port}"
    secrets.port = (
        secrets.server.add_insecure_port(address) if tls is None else secrets.server.add_secure_port(address, tls)
    )
    await secrets.server.start()
    try:
        yield secrets, secrets.port
    finally:
        await secrets.stop()


@asynccontextmanager
async def google_cloud(folder: Path) -> AsyncIterator[dict[str, str]]:
    """Run a Google with tokens for a process of its own; give the variables by which Google's own client finds it.

    The client is not changed: it asks for a token of the service account, and connects by TLS, through a proxy, to the
    name of Google.
    """
    trusted = authority()
    certificate = issued(_HOST, by=trusted)
    tls = grpc.ssl_server_credentials([(certificate.both, certificate.pem.encode())])
    async with google_secrets(tls=tls) as (_, port), proxying() as proxy, serving(_token) as tokens:
        proxy.routes[f"{_HOST}:443"] = f"127.0.0.1:{port}"
        account, authorities = folder / "google.json", folder / "google.pem"
        account.write_bytes(service_account(f"{tokens}/token"))
        authorities.write_text(trusted.pem)
        yield {
            "GOOGLE_CLOUD_PROJECT": PROJECT,
            "GOOGLE_APPLICATION_CREDENTIALS": str(account),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(authorities),
            "grpc_proxy": f"http://127.0.0.1:{proxy.port}",
        }


async def _token(_request: web.Request) -> web.Response:
    return web.json_response({"access_token": "of-the-tests", "expires_in": 3600, "token_type": "Bearer"})


def service_account(token_uri: str = "http://127.0.0.1:1/token") -> bytes:
    """Return the file of a service account; by default nobody gives out its tokens."""
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "project_id": PROJECT,
        "private_key_id": "1",
        "private_key": pem,
        "client_email": f"hookseal@{PROJECT}.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    return json.dumps(account).encode()
