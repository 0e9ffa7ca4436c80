"""HTML -> a tree of elements, for tests of pages."""

from collections.abc import Iterator
from html.parser import HTMLParser
from xml.etree.ElementTree import Element, TreeBuilder

VOID = ("meta", "img", "br")


class Parser(HTMLParser):
    """Builds a tree, and insists that tags close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.builder, self.open = TreeBuilder(), []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.builder.start(tag, {name: value or "" for name, value in attrs})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def parse(page: str) -> Element:
    return Parser(page).builder.close()


def text_of(element: Element) -> str:
    """All text in an element, with single spaces."""
    return " ".join("".join(element.itertext()).split())


def section(page: Element, anchor: str) -> Element:
    [found] = [part for part in page.iter("section") if part.find("h2").get("id") == anchor]
    return found


def rows_of(table: Element) -> list[list[str]]:
    """Texts of the cells, without the header."""
    return [[text_of(cell) for cell in row] for row in table.iterfind("tbody/tr")]


def tables_below(element: Element, heading: str) -> Iterator[Element]:
    """Tables after the heading with this text."""
    below = False
    for part in element.iter():
        below = below or (part.tag in ("h2", "h3", "h4", "summary") and text_of(part) == heading)
        if below and part.tag == "table":
            yield part
