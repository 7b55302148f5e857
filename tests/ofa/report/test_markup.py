"""Tests of the pieces of HTML pages."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from ofa.report.markup import definitions, plain_page, table


class Texts(HTMLParser):
    """The texts of a page by tag, as a browser reads them."""

    def __init__(self):
        super().__init__()
        self.tag, self.found = "", []

    def handle_starttag(self, tag, attrs):  # noqa: ARG002
        self.tag = tag
        self.found.append((tag, ""))

    def handle_data(self, data):
        if self.tag and self.found[-1][0] == self.tag:
            self.found[-1] = (self.tag, self.found[-1][1] + data)

    def handle_endtag(self, tag):  # noqa: ARG002
        self.tag = ""


def texts(html, *tags):
    parser = Texts()
    parser.feed(html)
    parser.close()
    return [text for tag, text in parser.found if tag in tags]


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1)


@given(name=TEXT, value=TEXT)
def test_any_text_is_shown_as_it_is(name, value):
    html = plain_page(name, table([{name: value}, {name: value}]), definitions({name: value}))
    assert texts(html, "th", "td") == [name, value, value]
    assert texts(html, "dt", "dd") == [name, value]
    assert texts(html, "title", "h1") == [name, name]
    assert "<script" not in html


def test_numbers_of_definitions_have_four_digits():
    assert texts(definitions({"a": 3.14159, "b": 12}), "dd") == ["3.142", "12"]
