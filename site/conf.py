"""How the site looks; `lessonlib.site` lays out its pages and calls Sphinx with this."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

project = "Continuous batching"
author = ""
html_title = "Continuous batching"
html_theme = "furo"
html_css_files = ["elevator.css", "site.css"]
html_js_files = ["elevators.js"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_show_copyright = False
html_show_search_summary = False  # it would fetch pages, which a folder does not allow
extensions = ["myst_nb"]
exclude_patterns = ["_static/*", "files/*"]
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"  # the outputs are those that the notebooks store
nb_ipywidgets_js: dict[str, Any] = {}  # by default these come from a CDN
nb_merge_streams = True
html_math_renderer = "mathml"


def _math(visitor: Any, node: nodes.Element) -> None:
    """Formulas as MathML: every browser draws it and reads it aloud, and nothing is loaded."""
    display = "block" if isinstance(node, nodes.math_block) else "inline"
    visitor.body.append(convert(node.astext(), display=display))
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", inline_renderers=(_math, None), block_renderers=(_math, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
