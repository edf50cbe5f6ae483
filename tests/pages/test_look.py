"""How the pages look: only what is a colour, a logo, a language or a zone is taken, and text is readable."""

from datetime import UTC, datetime

import pytest

from hookseal.pages.look import Look, contrast, stylesheet

MOMENT = datetime(2026, 12, 1, 22, 5, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"accent": each} for each in ("red", "#fff", "#12345G", "#1234567", "#ABCDEF", "#123456;}", "")),
        *(
            {"logo": each}
            for each in ("http://a.example/l.png", "//a.example/l.png", "javascript:x", "data:,x", "x.png", "")
        ),
        *(
            {"logo": each}
            for each in (
                "https://a.example/a b",
                'https://a.example/"',
                "https://u@a.example/x",
            )
        ),
        *({"language": each} for each in ("", "xx", "en_US", "../en", "english")),
        *({"time_zone": each} for each in ("", "Mars/Base", "../etc/passwd", "/etc/passwd")),
        *({"name": each} for each in ("", "x" * 65, "a\nb", "a\u202eb")),
    ],
)
def test_what_is_wrong_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Look(**wrong)


@pytest.mark.parametrize(
    ("logo", "origin"),
    [
        (None, None),
        ("/static/logo.svg", None),
        ("https://cdn.example/logo.svg?v=1", "https://cdn.example"),
        ("https://cdn.example:8443/l.png", "https://cdn.example:8443"),
    ],
)
def test_a_logo_is_ours_or_of_one_origin(logo: str | None, origin: str | None) -> None:
    assert origin == Look(logo=logo).image_origin


@pytest.mark.parametrize(
    ("language", "zone", "written"),
    [
        ("en", "UTC", "Dec 1, 2026, 22:05:06"),
        ("en-GB", "UTC", "1 Dec 2026, 22:05:06"),
        ("de", "Europe/Zurich", "1. Dez. 2026, 23:05:06"),
        ("fr", "UTC", "1 déc. 2026, 22:05:06"),
        ("pt-BR", "America/Sao_Paulo", "1 de dez. de 2026, 19:05:06"),
    ],
)
def test_a_date_is_in_the_language_and_the_zone(language: str, zone: str, written: str) -> None:
    assert written == Look(language=language, time_zone=zone).written(MOMENT)


@pytest.mark.req("UI-06")
@pytest.mark.parametrize("accent", ["000000", "ffffff", "1f5fbf", "ffff00", "808080", "767676", "00ff00", "ff0000"])
def test_text_is_readable_in_every_colour(accent: str) -> None:
    """On the button, and as a link on the grounds of both pages."""
    sheet = stylesheet(accent)
    assert sheet is not None
    light, dark = (part.partition("--link:")[2][:7] for part in sheet.splitlines())
    on_accent = sheet.partition("--on-accent:")[2][:7]
    assert contrast(on_accent, f"#{accent}") >= 4.5
    for ground in ("#ffffff", "#f4f5f7"):
        assert contrast(light, ground) >= 4.5
    for ground in ("#16191d", "#23272e"):
        assert contrast(dark, ground) >= 4.5


@pytest.mark.parametrize("accent", ["red", "12345", "1234567", "ABCDEF", "12345;"])
def test_what_is_no_colour_has_no_style_sheet(accent: str) -> None:
    assert stylesheet(accent) is None


def test_contrast_is_that_of_the_guidelines() -> None:
    assert 21 == round(contrast("#000000", "#ffffff"), 3)
    assert 4.54 == round(contrast("#767676", "#ffffff"), 2)
