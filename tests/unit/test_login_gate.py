"""The gate sends no malformed token, and lets no secret or control character into a message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_lakets.exceptions import LakebaseCredentialError, LakeTSError
from airflow_provider_lakets.login.gate import (
    LONGEST_SECRET,
    clean,
    clean_password,
    printable,
    redact,
    said,
    shown,
)
from airflow_provider_lakets.login.rest import Headers

if TYPE_CHECKING:
    from collections.abc import Callable

# Shorter than any token that is drawn, so that none is a part of it.
CONN_LABEL = "Connection 'lake'"
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=12, max_size=60)
SPACE = st.text(" \t\r\n\v\f\u2028\u3000", max_size=4)
BREAKING = st.sampled_from(["\n", "\r\n", "\0", "\x1b[31m", "\u200b", "\ufeff", "\udc80", "é", " ", "\x7f"])


@given(VISIBLE, SPACE, SPACE)
def test_white_space_around_a_token_is_taken_off(token: str, before: str, behind: str) -> None:
    assert clean(before + token + behind, "the token", CONN_LABEL) == token


@given(VISIBLE, BREAKING, VISIBLE)
def test_token_with_anything_else_inside_is_refused_without_a_part_of_it(
    head: str, breaking: str, tail: str
) -> None:
    with pytest.raises(LakebaseCredentialError, match="the token is broken: character") as caught:
        clean(head + breaking + tail, "the token", CONN_LABEL)

    assert head not in str(caught.value)
    assert tail not in str(caught.value)
    assert caught.value.__context__ is None
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("value", ["", " \n", None, 7, ["x"], {"a": "b"}, "x" * (LONGEST_SECRET + 1)])
def test_what_is_no_token_is_refused(value: object) -> None:
    with pytest.raises(LakebaseCredentialError):
        clean(value, "the token", CONN_LABEL)


@given(VISIBLE)
def test_header_passes_with_its_token_stripped(token: str) -> None:
    headers = Headers({"Authorization": f"Bearer {token}\n", "X-Other": f" {token}"}, "identity", CONN_LABEL)

    assert headers.headers == {"Authorization": f"Bearer {token}", "X-Other": token}
    assert set(headers.secrets) == {token}


@pytest.mark.parametrize("value", ["Bearer ey\nJ", "Bearer ", "ey\u200bJ", "Bearer eyJ\x00"])
def test_header_that_would_break_a_request_is_refused(value: str) -> None:
    with pytest.raises(LakebaseCredentialError):
        Headers({"Authorization": value}, "identity", CONN_LABEL)


FORMS: dict[str, Callable[[str], str]] = {
    "plain": lambda secret: secret,
    "percent-encoded": lambda secret: quote(secret, safe=""),
    "in JSON": lambda secret: json.dumps({"access_token": secret}),
    "as bytes": lambda secret: repr(secret.encode()),
    "twice": lambda secret: secret * 2,
    "in a URL": lambda secret: f"https://me:{quote(secret, safe='')}@host/",
}


@pytest.mark.parametrize("form", FORMS)
@given(secret=VISIBLE, before=st.text(max_size=10), behind=st.text(max_size=10))
def test_message_of_others_shows_no_secret(form: str, secret: str, before: str, behind: str) -> None:
    found = said(f"{before} {FORMS[form](secret)} {behind}", [secret])

    assert secret not in found
    assert found.isprintable()


@given(secret=VISIBLE, text=st.text(max_size=40))
def test_what_holds_no_secret_is_kept(secret: str, text: str) -> None:
    plain = "".join(char for char in text if char.isprintable() and char not in secret + ":=@/'\"")

    assert redact(plain, [secret]) == plain


@pytest.mark.parametrize(
    "text",
    [
        "token: eyJhbGciOi.abc.def",
        "Invalid header value b'Bearer eyJhbGciOi'",
        '{"client_secret": "5ecret-value"}',
        "https://me:5ecret-value@my.cloud.databricks.com",
        "me:5ecret-value@my.cloud.databricks.com",
        "password=5ecret-value host=h",
        "client_secret=5ecret-value&grant_type=x",
        "Basic NWVjcmV0LXZhbHVl",
    ],
)
def test_what_looks_like_a_secret_goes_though_nobody_knows_it(text: str) -> None:
    found = said(text)

    assert not any(part in found for part in ("eyJhbGciOi", "5ecret-value", "NWVjcmV0LXZhbHVl"))


@given(st.text(max_size=300))
def test_what_is_shown_can_be_printed(text: str) -> None:
    assert printable(text).isprintable()
    assert shown(text).isprintable()


def test_long_message_is_cut() -> None:
    assert len(said("x " * 10_000)) == 500


@pytest.mark.parametrize("value", ["hunter2\n", "hunter2\r\n", "hunter2"])
def test_newline_behind_a_native_password_is_taken_off(value: str) -> None:
    assert clean_password(value, CONN_LABEL) == "hunter2"


@pytest.mark.parametrize("value", ["\n", "hunter2\0", "hunter2\ud800"])
def test_native_password_that_postgres_cannot_take_is_refused(value: str) -> None:
    with pytest.raises(LakeTSError) as caught:
        clean_password(value, CONN_LABEL)

    assert "hunter2" not in str(caught.value)
