"""XML that others wrote: elements with their place in the text, so that all else can stay as it is."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

MAX_BYTES = 64 << 20  # 600,000 notes; deflate could make 1,000 times its size of it
_ELEMENTS, _DEPTH, _TEXT = 1_000_000, 100, 10_000
_START_TAG = re.compile(rb"""<(?:[^>"']|"[^"]*"|'[^']*')*+>""")
_NOT_IN_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(slots=True)
class Element:
    """An XML element and its place in the text: bytes ``begin`` to ``end``, its content ``inner`` to ``inner_end``.

    ``text`` is what precedes its first child.
    """

    tag: str
    attributes: dict[str, str]
    begin: int = 0
    inner: int = 0
    inner_end: int = 0
    end: int = 0
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def find(self, *path: str) -> Element | None:
        """The first element at ``path`` of tags below this one."""
        element: Element | None = self
        for tag in path:
            element = next((child for child in element.children if child.tag == tag), None) if element else None
        return element

    def walk(self) -> Iterator[Element]:
        """This element and all below it, in the order of the text."""
        yield self
        for child in self.children:
            yield from child.walk()


def parse(data: bytes) -> Element:
    """Return the root element of an XML text; raises ValueError if it is not well-formed UTF-8, or a trap.

    Declarations of a document type are refused, as entities that grow come with them.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES >> 20} MB")
    data.decode("utf-8")  # expat would also take UTF-16, whatever it is told
    parser = expat.ParserCreate("utf-8")
    parser.buffer_text = True
    stack = [Element("", {})]
    count = itertools.count(1)

    def begin(tag: str, attributes: dict[str, str]) -> None:
        if next(count) > _ELEMENTS or len(stack) > _DEPTH:
            raise ValueError(f"it has more than {_ELEMENTS} elements, or {_DEPTH} inside each other")
        start = parser.CurrentByteIndex
        match = _START_TAG.match(data, start)
        assert match  # expat has just read it
        element = Element(tag, attributes, start, match.end())
        stack[-1].children.append(element)
        stack.append(element)

    def end(tag: str) -> None:
        element = stack.pop()
        if data.endswith(b"/>", element.begin, element.inner):
            element.inner_end = element.end = element.inner
        else:
            element.inner_end = parser.CurrentByteIndex
            element.end = data.index(b">", element.inner_end) + 1

    def characters(text: str) -> None:
        if not stack[-1].children and len(stack[-1].text) < _TEXT:
            stack[-1].text += text

    def refuse(*_: object) -> None:
        raise ValueError("it declares a document type, which is refused")

    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = characters, refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is no XML ({error})") from None
    return stack[0].children[0]


def clean(text: str) -> str:
    """Text as XML can hold it: control characters and undecodable bytes of file names become question marks."""
    return _NOT_IN_XML.sub("?", text)
