"""Rewrites of a request's path, as Envoy does them: the query stays, only the path before it changes.

A `uri` takes the place of the prefix that matched, of the whole path where it was matched whole (exact or regular
expression), and of the first `/` where no path was asked for. A `uriRegexRewrite` replaces each part that matches.
"""

from __future__ import annotations

from collections.abc import Callable

from upwell.functions.api.http_routes import HTTPMatchRequest, HTTPRewrite
from upwell.functions.api.regex_replace import Replacer

Rewrite = Callable[[bytes], bytes]
"""Makes a target of a target, both in origin form."""


def path_rewrite(rewrite: HTTPRewrite | None, match: HTTPMatchRequest | None) -> Rewrite | None:
    """How the path of a request changes that came by `match`; None when it does not."""
    if rewrite is None:
        return None
    rule = rewrite.uri_regex_rewrite
    if rule is not None:
        return _on_path(Replacer(rule.match, rule.rewrite).replace)
    if not rewrite.uri:
        return None
    new = rewrite.uri
    uri = match.uri if match is not None else None
    if uri is not None and (uri.exact is not None or (uri.regex is not None and not uri.is_presence)):
        return _on_path(lambda path: new)
    length = len(uri.prefix or "/") if uri is not None else 1
    return _on_path(lambda path: new + path[length:])


def _on_path(change: Callable[[str], str]) -> Rewrite:
    def rewritten(target: bytes) -> bytes:
        path, mark, query = target.partition(b"?")
        if not path.startswith(b"/"):
            return target  # `OPTIONS *`
        changed = change(path.decode("latin-1"))
        if not changed.startswith("/"):
            changed = f"/{changed}"
        return changed.encode("latin-1") + mark + query

    return rewritten
