"""What a visitor sends: the fields of a form, or the parameters of an address. Pure."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl
from zoneinfo import ZoneInfo

from hookseal.api.problems import Problem, invalid
from hookseal.errors import Malformed

MAX_FIELDS: Final = 400
NAME: Final = "form_token"


class Fields:
    """The values of fields by name, with LF as the end of each line."""

    def __init__(self, values: Mapping[str, Sequence[str]]) -> None:
        self._values = values

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        """Return the first value without the white space around it; the default if there is none."""
        values = self._values.get(name)
        return values[0].strip() if values else default

    def every(self, name: str) -> list[str]:
        """Return all values."""
        return list(self._values.get(name, ()))

    def lines(self, name: str) -> list[str]:
        """Return the lines of the first value that are not empty, without the white space around them."""
        return [line.strip() for line in self.text(name).split("\n") if line.strip()]

    def number(self, name: str) -> int | None:
        """Return the value as a whole number of at most nine digits, None if it is none."""
        text = self.text(name)
        return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None  # noqa: PLR2004

    def moment(self, name: str, zone: ZoneInfo) -> datetime | None:
        """Return the time, in the zone of the visitor if the text names none; None if there is no text.

        Raises `Malformed`.
        """
        text = self.text(name)
        if not text:
            return None
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise Malformed("must be a date and a time, as 2026-11-30T08:00", field=name) from None
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


def parsed(encoded: bytes) -> Fields:
    """Return the fields of a form, or the parameters of an address. Raises `Problem` unless they are UTF-8."""
    try:
        pairs = parse_qsl(
            encoded.decode("ascii"),
            keep_blank_values=True,
            encoding="utf-8",
            errors="strict",
            max_num_fields=MAX_FIELDS,
        )
    except UnicodeDecodeError:
        raise invalid(("body",), "the form must be text in UTF-8") from None
    except ValueError:
        raise Problem(413, "payload_too_large", f"a form has at most {MAX_FIELDS} fields") from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value.replace("\r\n", "\n").replace("\r", "\n"))
    return Fields(values)
