"""Mappings: how they are written, and which image means which of them."""

from __future__ import annotations

import pytest

from upwell.functions.errors import InvalidSettings
from upwell.runtime.control.images import (
    CommandMapping,
    Mapped,
    PathMapping,
    find_mapping,
    parse_mapping,
    read_mappings,
    unmapped_message,
    without_tag,
)


@pytest.mark.parametrize(
    ("text", "mapped"),
    [
        ("/src/hello:greet", PathMapping("/src/hello:greet")),
        ('{"path": "/src/hello.py"}', PathMapping("/src/hello.py")),
        ("cmd:node 'my server.js'", CommandMapping(("node", "my server.js"), "/here")),
        ('{"command": "./serve -v", "directory": "/there"}', CommandMapping(("./serve", "-v"), "/there")),
        ('{"command": "cmd:./serve"}', CommandMapping(("./serve",), "/here")),
    ],
)
def test_a_mapping_is_a_path_or_a_command(text: str, mapped: Mapped) -> None:
    assert parse_mapping(text, "--image app", "/here") == mapped


@pytest.mark.parametrize(
    "text", ["", " ", "cmd:", "cmd:'", "cmd:a\0", "{", "{}", '{"path": 1}', '{"path": "a", "command": "b"}']
)
def test_what_is_no_mapping_is_refused_with_where_it_was_given(text: str) -> None:
    with pytest.raises(InvalidSettings) as raised:
        parse_mapping(text, "--image app")
    assert raised.value.where == "--image app"


def test_settings_hold_mappings_by_name_and_the_later_one_holds() -> None:
    found = read_mappings(["a=/one", "b=cmd:serve --x=1", "a=/two"], "images", "/here")
    assert found == {"a": PathMapping("/two"), "b": CommandMapping(("serve", "--x=1"), "/here")}
    for wrong in ("a", "=x", " =x", "a="):
        with pytest.raises(InvalidSettings):
            read_mappings([wrong], "images", "/here")


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("app", "app"),
        ("app:1.0", "app"),
        ("host:5000/app", "host:5000/app"),
        ("host:5000/team/app:1.0@sha256:abc", "host:5000/team/app"),
        ("registry.{REGION-ID}.aliyuncs.com/sample/go:73fbdd56", "registry.{REGION-ID}.aliyuncs.com/sample/go"),
    ],
)
def test_an_image_is_named_without_its_tag_and_digest(image: str, name: str) -> None:
    assert without_tag(image) == name


def test_an_image_means_the_mapping_that_is_spelt_like_it_most() -> None:
    exact, named, elsewhere = PathMapping("/1"), PathMapping("/2"), PathMapping("/3")
    settings = {"app:1": exact, "app": named}
    assert find_mapping("app:1", {}, settings) == ("app:1", exact)
    assert find_mapping("app:2", {}, settings) == ("app", named)
    assert find_mapping("app:1", {"app": elsewhere}, settings) == ("app", elsewhere)
    assert find_mapping("team/app:1", {}, settings) is None
    assert find_mapping("app", {"app:1": exact}) is None


def test_the_message_says_how_to_map_an_image() -> None:
    assert unmapped_message("app:1") == (
        'no source or command is mapped to the image "app:1"; map it with: upwell apply -f … --image app:1=PATH'
    )
