"""One HTML document from records. It embeds style, script and data, and needs no network.

The content security policy of the page allows only the embedded style and script, identified by
their hashes, embedded pictures, and pictures and clips of the page's own origin. Texts of users,
files and models are embedded as JSON (`to_json`), which the script displays as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from mmcam.media.images import atomic_write
from mmcam.render import COLORMAPS
from mmcam.render.colormaps import DIVERGING

SCRIPTS = ("maps.js", "stage.js", "player.js", "controls.js", "viewer.js", "gallery.js", "main.js")
COLORMAP_CHOICES = ("inferno", "viridis", "jet")
"""The colour maps that every page offers, besides the one that it is written with."""


def page(record: Mapping[str, Any], colormap: str = "inferno") -> str:
    """The page of one result; `colormap` is a key of `render.COLORMAPS`."""
    return _document(record["title"], {"kind": "one", **_colour_tables(colormap)}, [record])


def gallery_page(
    records: Sequence[Mapping[str, Any]], title: str, colormap: str = "inferno"
) -> str:
    """The page of many results, with a card for each map.

    The script parses a record only when one of its cards scrolls into view.
    """
    cards = [
        {
            "record": record_index,
            "target": target_index,
            **{key: target[key] for key in ("label", "kind", "score", "probability", "method")},
            **{key: target[key] for key in ("layer", "against", "empty")},
            **{key: record[key] for key in ("title", "file", "model")},
        }
        for record_index, record in enumerate(records)
        for target_index, target in enumerate(record["targets"])
    ]
    head = {"kind": "gallery", "cards": cards, **_colour_tables(colormap)}
    return _document(title, head, records)


def notebook(record: Mapping[str, Any], colormap: str = "inferno") -> str:
    """The page of one result in an iframe, as HTML for a notebook cell."""
    height = 780 if record["frames"] is None else 940
    return (
        f'<iframe title="mmcam: {html.escape(str(record["title"]))}" sandbox="allow-scripts" '
        f'style="width: 100%; height: {height}px; border: 0" '
        f'srcdoc="{html.escape(page(record, colormap))}"></iframe>'
    )


def write_page(path: Path, text: str) -> None:
    """Write a page and create its folder if needed; on failure, an existing file is unchanged.

    Raises:
        OutputError: the page cannot be written.
    """
    with atomic_write(path) as temporary:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate (from a file name that is not UTF-8) becomes a character reference.
        temporary.write_bytes(text.encode(errors="xmlcharrefreplace"))


def _colour_tables(colormap: str) -> dict[str, Any]:
    """The colour maps of a page as tables of 257 entries of three bytes each."""
    names = dict.fromkeys([*COLORMAP_CHOICES, colormap])
    tables = {name: COLORMAPS[name] for name in names} | {"difference": DIVERGING}
    return {
        "colormap": colormap,
        "colormaps": list(names),
        "tables": {k: base64.b64encode(v.tobytes()).decode() for k, v in tables.items()},
    }


def _document(title: str, head: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    style, script = _style(), _script()
    policy = "; ".join(
        [
            "default-src 'none'",
            "img-src data: 'self'",
            "media-src 'self'",
            f"style-src '{csp_hash(style)}'",
            f"script-src '{csp_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    data = {"head": head, **{f"record-{i}": entry for i, entry in enumerate(records)}}
    parts = {
        "policy": policy,
        "title": html.escape(str(title)),
        "style": style,
        "script": script,
        "data": "\n".join(_json_block(name, value) for name, value in data.items()),
    }
    # A single pass, so that {{style}} inside an inserted text is not replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _resource("page.html"))


def _json_block(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{name}">{to_json(value)}</script>'


def to_json(value: Any) -> str:
    """JSON that is safe inside a script element: no text in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 is escaped
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def read_json(text: str, name: str) -> Any:
    """The value of the JSON block `name` of a page.

    Raises:
        ValueError: the page has no such block, or the block is not JSON.
    """
    start = f'<script type="application/json" id="{name}">'
    _, separator, rest = text.partition(start)
    if not separator:
        raise ValueError(f"the page has no block {name}")
    return json.loads(rest.partition("</script>")[0])


def csp_hash(text: str) -> str:
    """The hash that identifies an inline style or script in a content security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _style() -> str:
    return _resource("page.css") + _resource("gallery.css")


@cache
def _script() -> str:
    return '(() => {\n"use strict";\n' + "".join(map(_resource, SCRIPTS)) + "})();\n"


@cache
def _resource(name: str) -> str:
    return files("mmcam.page").joinpath("static", name).read_text(encoding="utf-8")
