"""From records to one HTML text that needs no network: style, script and data are in it.

The content security policy of the page lets nothing run or load but what is in it, named by its
hash, and the clips in its own folder. Texts of users, files and models are data (`as_json`), which
the script shows as text.
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

from mmcam.media.images import replacing
from mmcam.render import COLORMAPS
from mmcam.render.colormaps import DIVERGING

SCRIPTS = ("maps.js", "stage.js", "player.js", "controls.js", "viewer.js", "gallery.js", "main.js")
CHOICES = ("inferno", "viridis", "jet")
"""The colour maps to choose from; another is added where it was asked for."""


def page(record: Mapping[str, Any], colormap: str = "inferno") -> str:
    """The page of one result."""
    return _document(record["title"], {"kind": "one", **_look(colormap)}, [record])


def gallery_page(
    records: Sequence[Mapping[str, Any]], title: str, colormap: str = "inferno"
) -> str:
    """The page of many results: a card for each map. A record is read when its card is seen."""
    cards = [
        {
            "record": number,
            "target": place,
            **{key: target[key] for key in ("label", "kind", "score", "probability", "method")},
            **{key: target[key] for key in ("layer", "against", "empty")},
            **{key: record[key] for key in ("title", "file", "model")},
        }
        for number, record in enumerate(records)
        for place, target in enumerate(record["targets"])
    ]
    return _document(title, {"kind": "gallery", "cards": cards, **_look(colormap)}, records)


def notebook(record: Mapping[str, Any], colormap: str = "inferno") -> str:
    """The page of one result as the value of a notebook's cell: a frame of its own."""
    height = 780 if record["frames"] is None else 940
    return (
        f'<iframe title="mmcam: {html.escape(str(record["title"]))}" sandbox="allow-scripts" '
        f'style="width: 100%; height: {height}px; border: 0" '
        f'srcdoc="{html.escape(page(record, colormap))}"></iframe>'
    )


def write_page(path: Path, text: str) -> None:
    """Write a page, and the folder for it; a failure leaves what was there.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        # Half a pair, as in a file name that is no UTF-8, becomes a reference to it.
        temporary.write_bytes(text.encode(errors="xmlcharrefreplace"))


def _look(colormap: str) -> dict[str, Any]:
    """The tables of colours: 257 entries of three bytes each."""
    names = dict.fromkeys([*CHOICES, colormap])
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
            f"style-src '{digest(style)}'",
            f"script-src '{digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    blocks = [_block("head", head), *(_block(f"record-{i}", r) for i, r in enumerate(records))]
    parts = {
        "policy": policy,
        "title": html.escape(str(title)),
        "style": style,
        "script": script,
        "data": "\n".join(blocks),
    }
    # In one pass, so that a text with {{style}} in it stays what it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _resource("page.html"))


def _block(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{name}">{as_json(value)}</script>'


def as_json(value: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII: U+2028 is escaped
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")


def read_json(text: str, name: str) -> Any:
    """The value of the block `name` of a page.

    Raises:
        ValueError: there is none.
    """
    start = f'<script type="application/json" id="{name}">'
    _, found, rest = text.partition(start)
    if not found:
        raise ValueError(f"there is no block {name}")
    return json.loads(rest.partition("</script>")[0])


def digest(text: str) -> str:
    """The hash by which a content security policy names an inline style or script."""
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
