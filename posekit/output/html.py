"""Reports as one self-contained HTML page: style, tables, figures and folded sections.

No script, no font, no reference to another file or host. Charts are in `charts`.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

import cv2

from posekit.errors import InputError
from posekit.types import UInt8

_STYLE = """*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;max-width:1040px;
margin:1.5em auto;padding:0 16px;color:#1f2328;background:#fff;overflow-wrap:anywhere}
h1{font-size:1.5em;line-height:1.25}h2{font-size:1.2em;margin:1.6em 0 .4em}h3{font-size:1em}
table{border-collapse:collapse;font-size:14px}.scroll{overflow-x:auto;margin:.8em 0}
td,th{padding:.25em .7em;text-align:right;border-bottom:1px solid #d8dee4;vertical-align:top;
overflow-wrap:normal;white-space:nowrap}td:first-child,.left td,.left th{white-space:normal}
td:first-child,th:first-child,.left td,.left th{text-align:left}
.scroll td:first-child{min-width:10em}.left td:last-child{overflow-wrap:anywhere;min-width:9em}
img,svg{max-width:100%;height:auto;vertical-align:top}
svg text{font:12px system-ui,sans-serif}svg .title{font-weight:600;font-size:14px}
svg .end{text-anchor:end}svg .middle{text-anchor:middle}svg .grid{stroke:#d8dee4}
svg .axis{stroke:#57606a}svg .limit{stroke:#1f2328;stroke-width:2;stroke-dasharray:3 2}
svg .diagonal{stroke:#8c959f;stroke-dasharray:4}svg .curve{fill:none;stroke-width:2.5}
.grid-of-two{display:grid;gap:1em 1.5em;
grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));align-items:start}
figure{margin:0}figcaption{font-size:14px}.note{color:#59636e}
.good{color:#1a7f37}.bad{color:#cf222e}.verdict{border-left:5px solid #8c959f;
background:#f6f8fa;padding:.6em 1em;margin:1em 0}.verdict.good{border-color:#1a7f37}
.verdict.bad{border-color:#cf222e}.verdict p{color:#1f2328;margin:.3em 0}
.verdict strong{font-size:1.15em}details{border:1px solid #d8dee4;border-radius:6px;
padding:.5em .9em;margin:.7em 0}details>*+*{margin-top:.6em}summary{cursor:pointer;font-weight:600}
.warnings{background:#fff8c5}"""


def escape(text: str) -> str:
    """`text` for an element or a quoted attribute."""
    return html.escape(text)


def page(title: str, parts: Iterable[str]) -> str:
    """The document. title: plain text, for the browser's tab.  parts: HTML elements, in order."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title>"
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


def heading(text: str, level: int = 2, kind: str = "") -> str:
    """A heading of plain text; kind: good, bad or nothing."""
    style = f' class="{kind}"' if kind else ""
    return f"<h{level}{style}>{escape(text)}</h{level}>"


def paragraph(text: str, kind: str = "note") -> str:
    """A paragraph of plain text; kind: note (gray), good, bad or nothing."""
    style = f' class="{kind}"' if kind else ""
    return f"<p{style}>{escape(text)}</p>"


def verdict(title: str, lines: Iterable[str], kind: str = "") -> str:
    """The result of a report, in a box: a title and plain sentences; kind: good, bad or nothing."""
    text = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f'<div class="verdict {kind}"><strong>{escape(title)}</strong>{text}</div>'


def details(title: str, parts: Iterable[str]) -> str:
    """A section that is folded until its title is selected. Empty without parts."""
    contents = "".join(parts)
    return f"<details><summary>{escape(title)}</summary>{contents}</details>" if contents else ""


def grid(parts: Iterable[str]) -> str:
    """Charts or figures side by side where the page is wide enough. Empty without parts."""
    contents = "".join(parts)
    return f'<div class="grid-of-two">{contents}</div>' if contents else ""


def bullets(lines: Iterable[str], kind: str = "") -> str:
    """A list of plain texts; kind: warnings or nothing. Empty where there are none."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    style = f' class="{kind}"' if kind else ""
    return f"<ul{style}>{items}</ul>" if items else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: bool = False) -> str:
    """A table of plain texts, columns right-aligned but the first.

    head: column titles; empty for no title row.  left: every column left-aligned.
    """
    top = "".join(f"<th>{escape(each)}</th>" for each in head)
    lines = [f"<tr>{top}</tr>"] if top else []
    lines += [
        "<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows
    ]
    style = ' class="left"' if left else ""
    return f'<div class="scroll"><table{style}>{"".join(lines)}</table></div>'


def figure(image: UInt8, caption: str) -> str:
    """An image uint8 (H, W, 3) RGB as an embedded JPEG, and its caption. Raises InputError."""
    written, data = cv2.imencode(".jpg", image[:, :, ::-1])
    if not written:
        raise InputError(f"figure: OpenCV cannot encode an image of shape {image.shape} as JPEG")
    coded, text = base64.b64encode(data.tobytes()).decode(), escape(caption)
    return (
        f'<figure><img alt="{text}" src="data:image/jpeg;base64,{coded}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
