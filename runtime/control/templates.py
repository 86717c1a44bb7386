"""Templates of host names, as Knative's `config-network` has them: a part of Go's text/template.

Known are fields (`{{.Name}}`, `{{.Labels.team}}`), `{{index .Annotations "a.b/c"}}`, text in quotes, `{{if}}` with
`{{else}}`, `{{else if}}` and `{{end}}`, the functions `eq`, `ne`, `and`, `or`, `not`, parentheses, comments and
the marks `{{-` and `-}}` that take the space beside them. Whatever else Go knows is refused when one is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

Values = Mapping[str, str | Mapping[str, str]]
"""What fields stand for: text, or text by key."""

_ACTION: Final = re.compile(r"\{\{(- )?((?:\"(?:\\.|[^\"\\])*\"|`[^`]*`|(?!\}\}).)*?)( -)?\}\}", re.DOTALL)
_TOKEN: Final = re.compile(r"\s*(?:(\()|(\))|((?:\.\w+)+)|(\"(?:\\.|[^\"\\])*\"|`[^`]*`)|(\w+))")
_COMMENT: Final = re.compile(r"/\*.*\*/", re.DOTALL)
_ARGUMENTS: Final = {"index": 2, "ne": 2, "not": 1}
"""How many each of these takes; the others take two at least, or one."""
_FUNCTIONS: Final = ("index", "eq", "ne", "and", "or", "not")
_LONGEST: Final = 1024
"""Which bounds how deep one nests, too."""


class _Field(NamedTuple):
    path: tuple[str, ...]


class _Call(NamedTuple):
    function: str
    arguments: tuple[_Expression, ...]


_Expression = str | _Field | _Call


class _If(NamedTuple):
    condition: _Expression
    then: tuple[_Node, ...]
    otherwise: tuple[_Node, ...]


class _Print(NamedTuple):
    expression: _Expression


_Node = str | _Print | _If


@dataclass(frozen=True, slots=True)
class Template:
    """A template that could be read; equal where its text is."""

    text: str
    _nodes: tuple[_Node, ...]

    @classmethod
    def read(cls, text: str, values: Values) -> Self:
        """The template of `text`, with the fields of `values`. Raises ValueError, which says what is wrong."""
        if len(text) > _LONGEST:
            raise ValueError(f"longer than {_LONGEST} characters")
        try:
            nodes, rest = _nodes(list(_parts(text)))
            _check(nodes, values)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if rest:
            raise ValueError(f"{{{{{rest[0].action}}}}} without an if")
        return cls(text, nodes)

    def render(self, values: Values) -> str:
        """The text for these values, which have the fields that it was read with."""
        return _rendered(self._nodes, values)


class _Part(NamedTuple):
    text: str
    action: str | None
    """None where it is text."""


def _parts(text: str) -> Iterator[_Part]:
    position, trims = 0, False
    for match in _ACTION.finditer(text):
        before = text[position : match.start()]
        before = before.lstrip() if trims else before
        yield _Part(before.rstrip() if match[1] else before, None)
        yield _Part("", match[2].strip())
        position, trims = match.end(), bool(match[3])
    rest = text[position:]
    if "{{" in rest:
        raise ValueError("{{ without }}")
    yield _Part(rest.lstrip() if trims else rest, None)


def _nodes(parts: Sequence[_Part]) -> tuple[tuple[_Node, ...], Sequence[_Part]]:
    """The nodes up to an `else` or `end` that is not theirs, and what is left from there on."""
    nodes: list[_Node] = []
    while parts:
        part, parts = parts[0], parts[1:]
        word, _, rest = (part.action or "").partition(" ")
        if part.action is None:
            nodes.append(part.text)
        elif word in ("else", "end"):
            return tuple(nodes), [part, *parts]
        elif word == "if":
            node, parts = _if(rest, parts)
            nodes.append(node)
        elif not _COMMENT.fullmatch(part.action):
            nodes.append(_Print(_expression(part.action)))
    return tuple(nodes), []


def _if(condition: str, parts: Sequence[_Part]) -> tuple[_If, Sequence[_Part]]:
    then, parts = _nodes(parts)
    otherwise: tuple[_Node, ...] = ()
    closing = parts[0].action if parts else None
    parts = parts[1:]
    if closing is not None and closing.startswith("else if "):
        inner, parts = _if(closing.removeprefix("else if "), parts)
        return _If(_expression(condition), then, (inner,)), parts
    if closing == "else":
        otherwise, parts = _nodes(parts)
        closing = parts[0].action if parts else None
        parts = parts[1:]
    if closing != "end":
        raise ValueError("{{if}} without {{end}}")
    return _If(_expression(condition), then, otherwise), parts


def _expression(text: str) -> _Expression:
    tokens = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"{text[position:].strip()[:20]!r} is not known in a template here")
        tokens.append(match)
        position = match.end()
    expression, rest = _command(tokens)
    if rest:
        raise ValueError(f"{rest[0][0].strip()!r} is one too many")
    return expression


def _command(tokens: Sequence[re.Match[str]]) -> tuple[_Expression, Sequence[re.Match[str]]]:
    """A function with its arguments, or one operand."""
    if not tokens:
        raise ValueError("an empty action")
    name = tokens[0][5]
    if name is None:
        return _operand(tokens)
    if name not in _FUNCTIONS:
        raise ValueError(f"the function {name!r} is not known in a template here")
    arguments, tokens = [], tokens[1:]
    while tokens and not tokens[0][2]:
        argument, tokens = _operand(tokens)
        arguments.append(argument)
    exact = _ARGUMENTS.get(name)
    if len(arguments) != exact if exact else len(arguments) < (2 if name == "eq" else 1):
        raise ValueError(f"{name} with {len(arguments)} arguments")
    return _Call(name, tuple(arguments)), tokens


def _operand(tokens: Sequence[re.Match[str]]) -> tuple[_Expression, Sequence[re.Match[str]]]:
    first, rest = tokens[0], tokens[1:]
    if first[1]:
        inner, rest = _command(rest)
        if not rest or not rest[0][2]:
            raise ValueError("( without )")
        return inner, rest[1:]
    if first[3]:
        return _Field(tuple(first[3][1:].split("."))), rest
    if first[4]:
        return (first[4][1:-1] if first[4][0] == "`" else str(json.loads(first[4]))), rest
    raise ValueError(f"{first[0].strip()!r} is not known in a template here")


# When one is read: whatever branch is taken later, it prints text


def _check(nodes: Sequence[_Node], values: Values) -> None:
    for node in nodes:
        if isinstance(node, _Print):
            _check_text(node.expression, values)
        elif isinstance(node, _If):
            if not isinstance(node.condition, _Field):
                _check_text(node.condition, values)
            _value(node.condition, values)
            _check(node.then, values)
            _check(node.otherwise, values)


def _check_text(expression: _Expression, values: Values) -> None:
    if isinstance(expression, _Call):
        rest = expression.arguments
        if expression.function == "index":
            if not isinstance(_value(rest[0], values), Mapping):
                raise ValueError("index wants .Labels or .Annotations and the name of one")
            rest = rest[1:]
        for each in rest:
            _check_text(each, values)
    elif isinstance(_value(expression, values), Mapping):
        raise ValueError("a whole set of labels or annotations is no text")


# When it is used


def _rendered(nodes: Sequence[_Node], values: Values) -> str:
    return "".join(_text(node, values) for node in nodes)


def _text(node: _Node, values: Values) -> str:
    if isinstance(node, str):
        return node
    if isinstance(node, _If):
        return _rendered(node.then if _value(node.condition, values) else node.otherwise, values)
    value = _value(node.expression, values)
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(expression: _Expression, values: Values) -> str | bool | Mapping[str, str]:
    if isinstance(expression, str):
        return expression
    if isinstance(expression, _Field):
        return _field(expression.path, values)
    name, arguments = expression
    if name in ("and", "or"):
        return _first(arguments, values, until=name == "or")
    first, *others = (_value(each, values) for each in arguments)
    if name == "not":
        return not first
    if isinstance(first, Mapping):
        return first.get(str(others[0]), "")
    return first in others if name == "eq" else first != others[0]


def _first(arguments: Sequence[_Expression], values: Values, *, until: bool) -> str | bool | Mapping[str, str]:
    """The first argument that is something (`until`) or nothing, else the last."""
    value: str | bool | Mapping[str, str] = ""
    for each in arguments:
        value = _value(each, values)
        if bool(value) is until:
            break
    return value


def _field(path: tuple[str, ...], values: Values) -> str | Mapping[str, str]:
    found = values.get(path[0])
    if found is None:
        known = ", ".join(f".{name}" for name in values)
        raise ValueError(f".{path[0]} is not known; there are {known}")
    if len(path) == 1:
        return found
    if isinstance(found, str) or len(path) > 2:
        raise ValueError(f".{'.'.join(path)} is not known: .{path[0]} holds no such part")
    return found.get(path[1], "")
