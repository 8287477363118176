"""Page tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query_server.page_tokens import Cursor, MalformedPageToken, decode_page_token, encode_page_token
from query_server.queries.order_lists import OrderFilter

cursors = st.builds(
    Cursor,
    create_time=st.integers(-(2**62), 2**62),
    order_id=st.text(alphabet=st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=64),
)


@given(cursors, st.binary(max_size=50))
def test_a_token_says_where_the_next_page_begins(cursor: Cursor, query: bytes) -> None:
    assert decode_page_token(encode_page_token(cursor, query), query) == cursor


@given(cursors, st.binary(max_size=50), st.binary(max_size=50))
def test_a_token_of_another_query_is_refused(cursor: Cursor, query: bytes, other: bytes) -> None:
    if query != other:
        with pytest.raises(MalformedPageToken):
            decode_page_token(encode_page_token(cursor, query), other)


@given(st.text(max_size=600))
def test_garbage_is_refused(text: str) -> None:
    with pytest.raises(MalformedPageToken):
        decode_page_token(text, b"query")


@given(cursors, st.integers(min_value=0), st.characters())
def test_a_changed_token_is_refused(cursor: Cursor, index: int, character: str) -> None:
    token = encode_page_token(cursor, b"query")
    index %= len(token)
    changed = token[:index] + character + token[index + 1 :]
    if changed != token:
        with pytest.raises(MalformedPageToken):
            decode_page_token(changed, b"query")
    for other in (token[:index], token + character, token[:index] + "!" + token[index:]):
        with pytest.raises(MalformedPageToken):
            decode_page_token(other, b"query")


def test_filters_that_differ_have_different_forms() -> None:
    filters = [
        OrderFilter((), "", None, None),
        OrderFilter((1,), "", None, None),
        OrderFilter((1, 2), "", None, None),
        OrderFilter((), "\x01", None, None),
        OrderFilter((), "c", None, None),
        OrderFilter((), "", 1, None),
        OrderFilter((), "", None, 1),
    ]
    assert len({wanted.canonical for wanted in filters}) == len(filters)
