"""The options of an endpoint, declared once for `endpoint add` and `update`, and the arguments that they give."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import wraps
from typing import Annotated, Any, Final, get_args, get_type_hints

import typer

from hookseal.cli.shared.input_files import read_input, require_one_from_stdin
from hookseal.cli.shared.secret_files import private_bytes
from hookseal.dispatcher.core import endpoint_rules, endpoint_settings
from hookseal.dispatcher.core.endpoint_settings import SETTINGS
from hookseal.dispatcher.core.model import OnDeadLetter
from hookseal.errors import Malformed
from hookseal.ground.wire import Algorithm, Scheme, header_name
from hookseal.secrets.extras.tls_identity import MAX_AUTHORITIES_BYTES, MAX_CERTIFICATE_BYTES, MAX_KEY_BYTES

NONE: Final = "none"
_REPLACED: Final = "options"  # the parameter of a command that the options of an endpoint replace
_REQUIRED: Final = inspect.Parameter.empty
_FIRST: Final = 3  # of the own options, which stand before the settings: url, --allow-same-url, --event-type
_MAX_HEADER_BYTES: Final = 65_536  # more than the limits of all headers together

Tenant = Annotated[str, typer.Option(help="The tenant of the endpoint.")]
Endpoint = Annotated[str, typer.Option(help="The id of the endpoint, or its uid.")]


class _Declared:
    """An option: its help, of `both` commands or of each. A command without a help does not have it.

    `new` is its default in `add`, if it is not that of the field. `update` changes only what is given.
    """

    def __init__(
        self,
        *names: str,
        both: str | None = None,
        add: str | None = None,
        update: str | None = None,
        metavar: str | None = None,
        new: object = None,
    ) -> None:
        self._names = names
        self._help = {"add": add or both, "update": update or both}
        self._metavar = metavar
        self._new = new

    def parameter(self, command: str, name: str, kind: Any, default: object) -> inspect.Parameter | None:
        """Return the parameter that gives the command this option, None if it does not have it."""
        if self._help[command] is None:
            return None
        option = typer.Option(*self._names, metavar=self._metavar, help=self._help[command])
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=self._new if command == "add" and self._new is not None else default,
            annotation=Annotated[kind, option],
        )


@dataclass(frozen=True, kw_only=True, repr=False)
class EndpointOptions:
    """What a command says of an endpoint; None is what was not given.

    `settings` are the values of the options that `EndpointSettings` declares, and those to remove, by `remove_NAME`.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    url: Annotated[
        str | None,
        _Declared(
            add="Where to POST: https://host[:port]/path. Each request checks the address of the host.",
            update="Where to POST from now on.",
            new=_REQUIRED,
        ),
    ] = None
    allow_same_url: Annotated[
        bool, _Declared("--allow-same-url", both="Also if the tenant has an endpoint with this URL.")
    ] = False
    event_type: Annotated[
        list[str] | None,
        _Declared(
            add="The event types that it gets: a type, 'a.*' or '*'. Repeatable. Without it: every type.",
            update="The event types that it gets, in place of all that it has. Repeatable.",
        ),
    ] = None
    scheme: Annotated[Scheme | None, _Declared(add="standard, svix or x-webhook.", new=Scheme.STANDARD)] = None
    algorithm: Annotated[Algorithm | None, _Declared(add="hmac or ed25519.", new=Algorithm.HMAC)] = None
    header: Annotated[
        list[str] | None,
        _Declared(
            metavar="'K: V'",
            both="A header to add to its requests. Repeatable. Other users of this machine can read arguments: "
            "prefer --headers-file.",
        ),
    ] = None
    headers_file: Annotated[
        str | None,
        _Declared(
            add="A private file with headers, one 'K: V' a line; - is stdin.",
            update="A private file with headers, one 'K: V' a line; - is stdin. They replace all its headers.",
        ),
    ] = None
    remove_header: Annotated[list[str] | None, _Declared(metavar="K", update="Remove this header. Repeatable.")] = None
    client_cert: Annotated[
        str | None, _Declared(both="The client certificate for its requests, with its chain (PEM).")
    ] = None
    client_key: Annotated[str | None, _Declared(both="A private file with the key of --client-cert (PEM).")] = None
    ca_file: Annotated[
        str | None,
        _Declared(both="The only certificate authorities (PEM) that it trusts, in place of the usual ones."),
    ] = None
    remove_client_cert: Annotated[
        bool, _Declared("--remove-client-cert", update="Send no client certificate from now on.")
    ] = False
    remove_ca: Annotated[bool, _Declared("--remove-ca", update="Trust the usual certificate authorities again.")] = (
        False
    )

    def arguments(self, *, secret_file: str | None = None) -> dict[str, Any]:
        """Return what was given as arguments of `Admin.endpoints`; the files are read, but not that of the secret.

        Raises `Malformed`, which never contains text of a file or of a header, and `Refused` if others may read a file
        that must be private.
        """
        given = {
            "url": self.url,
            "event_types": self.event_type or None,
            "allow_same_url": self.allow_same_url or None,
            "scheme": self.scheme,
            "algorithm": self.algorithm,
        }
        settings = parsed({name: value for name, value in self.settings.items() if name in SETTINGS})
        for name, setting in SETTINGS.items():
            if self.settings.get(f"remove_{name}") and name in settings:
                raise Malformed(f"{name} to be given and to be removed: leave one out", field=f"remove_{name}")
            if self.settings.get(f"remove_{name}"):
                settings[name] = setting.default
        settings |= {name: value for name, value in given.items() if value is not None}
        require_one_from_stdin(secret_file, self.headers_file, self.client_cert, self.client_key, self.ca_file)
        return settings | self._headers() | self._tls()

    def _headers(self) -> dict[str, Any]:
        """Return the headers. A file replaces all of an endpoint; an option sets one, or removes one, as None."""
        removed = [header_name(text) for text in self.remove_header or []]
        if removed and self.headers_file is not None:
            raise Malformed("--headers-file replaces all headers: leave out --remove-header", field="remove_header")
        to_set = _read_headers([*(self.header or []), *_lines(self.headers_file)])
        for name in sorted(to_set.keys() & set(removed)):
            raise Malformed(f"header {name} is to be set and to be removed: give one of them", field="remove_header")
        if self.headers_file is not None:
            return {"headers": to_set}
        changes = {**to_set, **dict.fromkeys(removed)}
        return {"change_headers": changes} if changes else {}

    def _tls(self) -> dict[str, Any]:
        """Return the client certificate, its key and the authorities; None is what is to be removed."""
        parts: dict[str, bytes | None] = {}
        if (self.client_cert is None) != (self.client_key is None):
            raise Malformed("--client-cert and --client-key belong together: give both", field="client_cert")
        if self.client_cert is not None and self.client_key is not None:
            parts["client_cert"] = read_input(self.client_cert, MAX_CERTIFICATE_BYTES, field="client_cert")
            parts["client_key"] = private_bytes(self.client_key, MAX_KEY_BYTES, field="client_key")
        if self.ca_file is not None:
            parts["ca"] = read_input(self.ca_file, MAX_AUTHORITIES_BYTES, field="ca_file")
        for name, is_removed, subject in (
            ("client_cert", self.remove_client_cert, "the client certificate is"),
            ("ca", self.remove_ca, "the authorities are"),
        ):
            if is_removed and name in parts:
                raise Malformed(f"{subject} to be given and to be removed", field=f"remove_{name}")
            if is_removed:
                parts[name] = None
        return parts


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of an endpoint in place of its parameter `options`."""
    kinds = get_type_hints(EndpointOptions, include_extras=True)
    own: list[inspect.Parameter] = []
    for each in fields(EndpointOptions):
        if each.name != "settings":
            kind, declaration = get_args(kinds[each.name])
            option = declaration.parameter(command.__name__, each.name, kind, each.default)
            own += [] if option is None else [option]
    settings = [each for name in SETTINGS for each in _parameters(command.__name__, name)]
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        parameters += [*own[:_FIRST], *settings, *own[_FIRST:]] if parameter.name == _REPLACED else [parameter]

    @wraps(command)
    def called(**values: Any) -> None:
        chosen = {each.name: values.pop(each.name) for each in settings}
        options = EndpointOptions(settings=chosen, **{each.name: values.pop(each.name) for each in own})
        command(options=options, **values)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def _parameters(command: str, name: str) -> Iterator[inspect.Parameter]:
    """Yield the parameter of a setting, and in `update` that which removes it, if no text does."""
    setting, kind = SETTINGS[name], endpoint_settings.kind(name)
    spelled = setting.option or f"--{name.replace('_', '-')}"
    told = setting.update if command == "update" and setting.update is not None else setting.add
    given: Any = str | None
    if kind is bool:
        given = bool
    elif (kind is int and setting.read is None) or issubclass(kind, OnDeadLetter):
        given = kind | None
    elif setting.read is None and kind is not str:
        given = list[str] | None
    default = False if kind is bool else setting.new if command == "add" else None
    yield _parameter(name, given, default, typer.Option(spelled, metavar=setting.metavar, help=told))
    if command == "update" and setting.remove is not None:
        removal = typer.Option(f"--remove-{name.replace('_', '-')}", help=setting.remove)
        yield _parameter(f"remove_{name}", bool, False, removal)


def _parameter(name: str, kind: Any, default: object, option: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option])


def parsed(texts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are given as an `Admin` takes them: numbers and waits of texts, None for `none`.

    Raises `Malformed` for a text of another form, and for a schedule together with the options that it replaces.
    """
    settings = {
        name: value for name, value in texts.items() if value is not None and value is not False and value != []
    }
    if settings.get("retry_schedule") not in {None, NONE} and endpoint_rules.DEFAULT_BACKOFF.keys() & settings.keys():
        raise Malformed(
            "--retry-schedule replaces --max-attempts, --backoff-base and --backoff-cap: give it without them",
            field="retry_schedule",
        )
    for name, value in settings.items():
        setting = SETTINGS[name]
        if setting.read is not None and isinstance(value, str):
            settings[name] = None if value == NONE and setting.removable else setting.read(value)
        elif endpoint_settings.kind(name) is Mapping and isinstance(value, list):
            settings[name] = _pairs(value)
    return settings


def _pairs(texts: list[str]) -> dict[str, str]:
    """Return the values by their keys. Raises `Malformed` if one is no KEY=VALUE, or if a key is given twice."""
    pairs: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in pairs:
            problem = "a key of metadata is given twice" if equals else "metadata is given as KEY=VALUE"
            raise Malformed(problem, field="metadata")
        pairs[key] = value
    return pairs


def _read_headers(lines: list[str]) -> dict[str, str]:
    """Return the headers, names in lower case. Raises `Malformed`, which never contains a value."""
    by_name: dict[str, str] = {}
    for line in lines:
        spelled, colon, value = line.partition(":")
        if not colon:
            raise Malformed("a header is given as 'K: V'", field="header")
        name = header_name(spelled)
        if name in by_name:
            raise Malformed(f"header {name} is given twice", field="header")
        by_name[name] = value.strip(" \t")
    return by_name


def _lines(file: str | None) -> list[str]:
    """Return the lines of the file that are not empty."""
    if file is None:
        return []
    raw = private_bytes(file, _MAX_HEADER_BYTES + 1, field="headers_file")
    if len(raw) > _MAX_HEADER_BYTES:
        raise Malformed(f"a file of headers has at most {_MAX_HEADER_BYTES} bytes", field="headers_file")
    lines = [
        line.removesuffix("\r") for line in raw.decode("latin-1").split("\n")
    ]  # a value that is not ASCII is refused later
    filled = [line for line in lines if line.strip(" \t")]
    if not filled:  # a pipe that broke must not leave an endpoint without its headers
        raise Malformed("there is no header in the file: to remove one, give --remove-header", field="headers_file")
    return filled
