"""The page of a listening test: HTML beside its media; opens from a disk or a server."""

from collections.abc import Mapping
import html
import json
from pathlib import Path
from typing import Any

from foley_jax.evaluation.listening import answers, listening_script
from foley_jax.evaluation.pages import page_look

STYLE = """
body { max-width: 60rem; }
.clips { display: grid; grid-template-columns: repeat(auto-fit, minmax(18rem, 1fr)); gap: 1rem; }
.clips video { max-height: 22rem; }
fieldset { border: 1px solid var(--line); border-radius: 8px; margin: 1rem 0; }
/* inside the border, where a long question may take two lines */
legend { float: left; width: 100%; padding: 0 0 .25rem; font-weight: 600; }
.option { display: block; clear: both; padding: .25rem 0; }
progress { width: 100%; }
button { font: inherit; padding: .4rem 1.2rem; margin: .3rem 0; }
"""


def write(out: Path, public: Mapping[str, Any]) -> Path:
    """Writes index.html and test.json, which say the same.

    Args:
      out: folder of the page; its media/ holds the clips.
      public: as `answers.public` returns it.
    Returns:
      The page.
    """
    # a script element ends at "</", whatever stands around it
    data = json.dumps(public, separators=(",", ":")).replace("<", "\\u003c")
    title = html.escape(str(public["title"]))
    text = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        # an icon of its own: else browsers ask the server for one that is not there
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{page_look.STYLE}{STYLE}</style>\n</head>\n<body>\n"
        f'<h1>{title}</h1>\n<div id="root"><noscript>This page needs JavaScript.</noscript></div>\n'
        f'<script type="application/json" id="test">{data}</script>\n'
        f"<script>{listening_script.SCRIPT}</script>\n</body>\n</html>\n"
    )
    path = out / "index.html"
    path.write_text(text, encoding="utf-8", errors="replace")
    (out / answers.TEST_FILE).write_text(json.dumps(public, separators=(",", ":")) + "\n")
    return path
