"""Pieces of HTML pages that need no script; everything given as text is escaped."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<h1>{title}</h1>
{body}
</body>
</html>
"""


def plain_page(title: str, *parts: str) -> str:
    """Return a page of HTML parts, in the style of the report."""
    return _PAGE.format(title=escape(title), css=resource("page.css"), body="\n".join(parts))


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Return a table of rows by column, at least one."""

    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>\n"

    body = "".join(row(cells.values(), "td") for cells in rows)
    return f'<div class="scroll"><table>\n{row(rows[0], "th")}{body}</table></div>'


def definitions(pairs: Mapping[str, Any]) -> str:
    """Return a list of names and what each is."""
    texts = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in pairs.items()}
    items = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>\n" for name, text in texts.items())
    return f"<dl>\n{items}</dl>"


def resource(name: str) -> str:
    """Return a file of this folder, such as `page.css`."""
    return files("ofa.report").joinpath(name).read_text(encoding="utf-8")
