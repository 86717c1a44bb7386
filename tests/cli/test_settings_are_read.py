"""Settings as a person writes them, in variables and flags."""

from __future__ import annotations

import json

import pytest

from upwell.functions.errors import InvalidSettings
from upwell.runtime.roles.up_settings import UpSettings
from upwell.runtime.settings import from_environment

COMMAND = "app=cmd:serve --listen a,b"


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("", ()),
        ("a=./a, b=./b:main,", ("a=./a", "b=./b:main")),
        (json.dumps([COMMAND]), (COMMAND,)),
        (f" {json.dumps(['a=./a', COMMAND])}\n", ("a=./a", COMMAND)),
        ("[]", ()),
    ],
)
def test_names_stand_between_commas_or_in_an_array_where_they_hold_commas(
    text: str, images: tuple[str, ...]
) -> None:
    assert from_environment(UpSettings, {"UPWELL_IMAGES": text}).images == images


@pytest.mark.parametrize("text", ["[", "[::1]", "[1]", '[["a=b"]]', '["a=b"],'])
def test_an_array_that_holds_no_names_is_refused_with_its_variable(text: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        from_environment(UpSettings, {"UPWELL_IMAGES": text})
    assert raised.value.where == "UPWELL_IMAGES"
    assert "is not names with commas or in a JSON array" in raised.value.what
