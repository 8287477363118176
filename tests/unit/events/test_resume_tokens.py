"""Resume tokens."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from command_server.events.resume_tokens import (
    MalformedResumeToken,
    ResumeToken,
    decode_resume_token,
    encode_resume_token,
)

positions = st.integers(0, 2**63 - 1)
tokens = st.builds(
    ResumeToken,
    epoch=st.uuids().map(str),
    covered=positions,
    next_position=positions,
    not_before=st.integers(-(2**62), 2**62),
    cell=st.integers(0, 2**16 - 1),
)


@given(tokens)
def test_a_token_says_where_the_subscription_was(token: ResumeToken) -> None:
    assert decode_resume_token(encode_resume_token(token)) == token


@given(tokens, st.integers(0, 61), st.sampled_from("AZaz09-_"))
def test_a_token_with_a_typing_error_is_refused(token: ResumeToken, index: int, character: str) -> None:
    text = encode_resume_token(token)
    changed = text[:index] + character + text[index + 1 :]
    if changed != text:
        with pytest.raises(MalformedResumeToken):
            decode_resume_token(changed)


@given(st.text(max_size=100))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(MalformedResumeToken):
        decode_resume_token(text)


def test_the_form_is_for_ever_since_clients_keep_tokens() -> None:
    token = ResumeToken(str(UUID(int=7)), covered=41, next_position=42, not_before=1_700_000_000_000_000)
    assert encode_resume_token(token) == "AQAAAAAAAAAAAAAAAAAAAAAABwAAAAAAAAApAAAAAAAAACoABgokGB5AAKxmPu8"
