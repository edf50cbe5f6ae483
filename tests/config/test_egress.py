"""The egress proxy and the file of certificate authorities: what is accepted, and that no error repeats a value."""

import os
import pickle
from pathlib import Path

import pytest

from hookseal.config.egress import certificates, proxy
from hookseal.config.load import NOTHING, load
from hookseal.dispatcher.http.tunnel import EgressProxy
from hookseal.errors import ConfigError
from tests.doubles.certificates import authority

CANARY = "canary-4f1d"


def problems(environ: dict[str, str]) -> list[str]:
    """Return the problems of these variables."""
    with pytest.raises(ConfigError) as caught:
        load(environ, needs=NOTHING)
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.internal:3128", EgressProxy(host="proxy.internal", port=3128)),
        ("http://proxy.internal:3128/", EgressProxy(host="proxy.internal", port=3128)),
        ("http://[fd00::1]:8080", EgressProxy(host="fd00::1", port=8080)),
        ("http://u:p%40%2F%3A%C3%AB@10.0.0.1:1", EgressProxy(host="10.0.0.1", port=1, credentials="u:p@/:ë".encode())),
        ("http://u:@h:65535", EgressProxy(host="h", port=65_535, credentials=b"u:")),
    ],
)
def test_a_proxy_url_is_parsed(text: str, expected: EgressProxy) -> None:
    """Host and port are read from the url, and the percent-encoded credentials are decoded."""
    assert expected == proxy(text)


@pytest.mark.parametrize(
    "text",
    [
        *(f"https://u:{CANARY}@h:1", f"http://u:{CANARY}@h", f"http://{CANARY}@h:1", f"http://u:{CANARY}@h:0"),
        *(
            f"http://u:{CANARY}@h:70000",
            f"http://u:{CANARY}/x@h:1",
            f"http://u:{CANARY}@h:1/path",
            f"socks5://{CANARY}:1",
        ),
        *(f"http://u:{CANARY}@x@h:1", f"http://u:{CANARY}\r\n@h:1", f"http://h:1?{CANARY}", "http://:1", CANARY),
    ],
)
def test_another_url_is_refused_without_its_value(text: str) -> None:
    """Any other url is refused by the name of the variable, without its value."""
    [problem] = problems({"HOOKSEAL_EGRESS_PROXY": text})

    assert problem.startswith("HOOKSEAL_EGRESS_PROXY must be http://HOST:PORT")
    assert CANARY not in problem


@pytest.mark.req("SEC-15", part="settings")
def test_proxy_credentials_are_masked(tmp_path: Path) -> None:
    """The credentials of the proxy, here from a file, are in no repr, and cannot be copied or pickled."""
    path = tmp_path / "proxy"
    path.write_text(f"http://user:{CANARY}@proxy.internal:3128\n")
    settings = load({"HOOKSEAL_EGRESS_PROXY_FILE": str(path)}, needs=NOTHING)

    assert settings.egress.proxy is not None
    assert f"user:{CANARY}".encode() == settings.egress.proxy.credentials
    assert CANARY not in repr(settings)
    with pytest.raises(TypeError, match="must not be copied or pickled"):
        pickle.dumps(settings.egress)


def test_every_certificate_is_read(tmp_path: Path) -> None:
    """Every certificate of the file is read, without the text between them."""
    one, other = authority("one"), authority("other")
    path = tmp_path / "ca.pem"
    path.write_text(f"Büro\n{one.pem}# and\n{other.pem}", encoding="utf-8")
    settings = load({"HOOKSEAL_EGRESS_CA_FILE": str(path)}, needs=NOTHING)

    assert f"{one.pem}{other.pem}".strip() == settings.egress.trusted == certificates(str(path))


def test_an_unusable_certificate_file_is_refused(tmp_path: Path) -> None:
    """A file that is absent, not regular, too large or without a certificate is refused by the variable's name."""
    broken = authority().pem.replace("MII", "AAA")
    texts = {"empty": "", "words": "words", "broken": broken, "large": "x" * 1_048_577}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    os.mkfifo(tmp_path / "pipe")
    for name in (*texts, "pipe", "missing", "."):
        [problem] = problems({"HOOKSEAL_EGRESS_CA_FILE": str(tmp_path / name)})
        assert problem.startswith("HOOKSEAL_EGRESS_CA_FILE names a file that")
        assert str(tmp_path) not in problem
