import re

import pytest

from export.http_server import RefusedError
from export.web.access import Access


def test_a_token_lets_one_browser_in_and_is_followed_by_another():
    told = []
    access = Access(told.append)
    first = access.token
    cookie = access.enter(first)
    assert access.knows(cookie)
    assert access.token != first
    assert told == [access.token]
    with pytest.raises(RefusedError, match="this link was used already"):
        access.enter(first)
    assert access.knows(access.enter(access.token))
    assert access.knows(cookie)


@pytest.mark.parametrize("wrong", ["", "x", "é", "\ud800", "a" * 100_000])
def test_another_token_or_cookie_is_refused(wrong):
    access = Access()
    with pytest.raises(RefusedError):
        access.enter(wrong)
    with pytest.raises(RefusedError):
        access.enter(access.token[:-1])
    assert not access.knows(wrong)


def test_tokens_and_cookies_cannot_be_guessed():
    tokens = [Access().token for _ in range(50)]
    assert len(set(tokens)) == 50
    assert all(re.fullmatch(r"[\w-]{24}", token) for token in tokens)


def test_beyond_64_browsers_the_oldest_is_forgotten():
    access = Access()
    cookies = [access.enter(access.token) for _ in range(65)]
    assert [access.knows(cookie) for cookie in cookies] == [False, *[True] * 64]
