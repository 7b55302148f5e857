"""Who may use the server: links that let one browser in, and the cookies of browsers that are in. Free of torch."""

import hashlib
import hmac
import secrets
import threading
from collections.abc import Callable

from export.http_server import RefusedError

_MAX_COOKIES = 64


class Access:
    """The link's present token, and the browsers that came in by an earlier one.

    A token lets one browser in; then there is another, which `on_token` is told.
    """

    def __init__(self, on_token: Callable[[str], None] = lambda token: None) -> None:
        self._lock, self._on_token = threading.Lock(), on_token
        self._cookies: dict[str, None] = {}
        self.token = secrets.token_urlsafe(18)

    def enter(self, token: str) -> str:
        """Return a cookie for a browser that has the token; beyond 64, the oldest are forgotten.

        RefusedError for a wrong token. The time that the comparison takes tells nothing of the token.
        """
        with self._lock:
            if not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
                raise RefusedError(403, "this link was used already, or is not whole; open the one that is shown now")
            cookie, self.token = secrets.token_urlsafe(32), secrets.token_urlsafe(18)
            self._cookies[_digest(cookie)] = None
            while len(self._cookies) > _MAX_COOKIES:
                del self._cookies[next(iter(self._cookies))]
        self._on_token(self.token)
        return cookie

    def knows(self, cookie: str) -> bool:
        """Return whether a browser has such a cookie; only digests are looked up."""
        with self._lock:
            return _digest(cookie) in self._cookies


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "replace")).hexdigest()
