"""Keys stay out of what is shown."""

from __future__ import annotations

from bqbuild.config.specs import ConnectionSpec
from bqbuild.llm.redaction import Redactor, bare_url

KEY = "sk-secret-123456"


def spec(**rest: object) -> ConnectionSpec:
    return ConnectionSpec.model_validate({"provider": "openai", "model": "m", "api_key": KEY, **rest})


def test_the_key_the_credentials_in_headers_and_those_in_urls_are_hidden() -> None:
    redactor = Redactor(
        spec(
            headers={"X-Api-Key": "header-secret", "Authorization": "Bearer other-secret", "X-Team": "red"},
            base_url="https://me:url-secret@host/v1?token=query-secret",
        )
    )
    text = f"{KEY} header-secret Bearer other-secret other-secret url-secret token=query-secret red"
    assert redactor.text(text) == "*** *** *** *** *** *** red"


def test_an_excerpt_is_one_short_line_and_never_ends_in_half_a_key() -> None:
    redactor = Redactor(spec())
    assert redactor.excerpt(f"a\n\tb\x00 {KEY}\n") == "a b ***"
    for padding in range(5970, 6001):
        assert "sk-" not in redactor.excerpt(" " * padding + KEY)
    assert len(redactor.excerpt("x" * 10_000)) == 303


def test_an_echoed_key_is_taken_out_of_a_reply_but_a_placeholder_eats_no_words() -> None:
    assert Redactor(spec()).body(b"you sent " + KEY.encode()) == b"you sent ***"
    assert Redactor(spec(api_key="EMPTY")).body(b"EMPTY") == b"EMPTY"
    assert Redactor(spec(api_key="")).body(b"anything") == b"anything"


def test_the_repr_of_a_connection_does_not_hold_the_key() -> None:
    connection = spec(headers={"X-Api-Key": "header-secret"})
    assert KEY not in repr(connection)
    assert "header-secret" not in repr(connection)
    assert KEY not in repr(Redactor(connection))


def test_urls_are_shown_without_credentials() -> None:
    assert bare_url("https://me:pw@host:8000/v1?token=x") == "https://host:8000/v1"
    assert bare_url("http://[::1]:80/v1") == "http://[::1]:80/v1"
    assert bare_url("not a url") == "(not a URL)"
    assert bare_url("http://host:port/v1") == "(not a URL)"
