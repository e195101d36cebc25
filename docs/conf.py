"""How `make docs` builds these pages as a site that reads without network. What it warns of, a broken link or formula, fails the build."""

import math_core
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.writers.html5 import HTML5Translator

project = "LamPO"
author = "The LamPO engineers"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
root_doc = "index"
suppress_warnings = ["toc.not_included"]  # the studies are reached from results/README.md

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4  # headings are linked by the names that code hosts give them

html_theme = "furo"
html_title = "LamPO"
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"

LATEX = math_core.LatexToMathML()


def setup(app: Sphinx) -> None:
    """Formulas become MathML, which browsers draw by themselves: the usual renderers load a script from elsewhere."""
    app.add_html_math_renderer("mathml", (draw_formula, None), (draw_formula, None))


def draw_formula(translator: HTML5Translator, node: nodes.math | nodes.math_block) -> None:
    """A formula of a page as MathML."""
    block, latex = isinstance(node, nodes.math_block), node.astext()
    numbered = rf"\begin{{equation}}{latex}\end{{equation}}" if r"\tag" in latex else latex
    try:
        formula = LATEX.convert_with_local_state(numbered, displaystyle=block)
        translator.body.append(f"<p>{formula}</p>" if block else formula)
    except math_core.LatexError as error:
        logging.getLogger(__name__).warning("%s: %s", latex, error, location=node)
    raise nodes.SkipNode
