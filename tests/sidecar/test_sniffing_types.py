"""The type that an answer without one gets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from upwell.runtime.sidecar.sniff import content_type


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (b"x", b"text/plain; charset=utf-8"),
        (b"\n  <!DOCTYPE html>", b"text/html; charset=utf-8"),
        (b"<p>hi", b"text/html; charset=utf-8"),
        (b"<Body class='a'>", b"text/html; charset=utf-8"),
        (b"<pre>", b"text/plain; charset=utf-8"),
        (b"<a", b"text/plain; charset=utf-8"),
        (b"<!-- c", b"text/html; charset=utf-8"),
        (b" <?xml version='1.0'?>", b"text/xml; charset=utf-8"),
        (b'{"a": 1}', b"text/plain; charset=utf-8"),
        (b"\xff\xfea\x00", b"text/plain; charset=utf-16le"),
        (b"\xef\xbb\xbfa", b"text/plain; charset=utf-8"),
        (b"%PDF-1.4", b"application/pdf"),
        (b"GIF89a...", b"image/gif"),
        (b"\x89PNG\r\n\x1a\n", b"image/png"),
        (b"\xff\xd8\xff\xe0", b"image/jpeg"),
        (b"RIFF\x01\x00\x00\x00WEBPVP8 ", b"image/webp"),
        (b"RIFF\x01\x00\x00\x00WAVE", b"audio/wave"),
        (b"PK\x03\x04", b"application/zip"),
        (b"\x1f\x8b\x08\x00", b"application/x-gzip"),
        (b"\x00\x00\x00\x10ftypmp42\x00\x00\x00\x00", b"video/mp4"),
        (b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x00", b"application/octet-stream"),
        (b"\x00asm\x01", b"application/wasm"),
        (b"a\x00b", b"application/octet-stream"),
        (b"a\x1bb", b"text/plain; charset=utf-8"),
        (b"x" * 600 + b"\x00", b"text/plain; charset=utf-8"),
    ],
)
def test_a_body_is_known_by_its_first_bytes(data: bytes, wanted: bytes) -> None:
    assert content_type(data) == wanted


@given(
    st.text(
        alphabet=st.characters(min_codepoint=0x30, exclude_characters="<\x7f", exclude_categories=["Cs"]),
        min_size=12,
    )
)
def test_text_is_text(text: str) -> None:
    kind = content_type(b"0" + text.encode())
    assert kind == b"text/plain; charset=utf-8"


@given(st.binary(max_size=64))
def test_every_body_has_a_type(data: bytes) -> None:
    assert b"/" in content_type(data)
