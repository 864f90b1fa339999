"""Builds the documentation as a site with Sphinx: `make docs`.

The source folder is the root of the repository, so that pages link to each other and to files as they do on GitHub.
"""

from typing import Any

from docutils.nodes import SkipNode, math, math_block
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

import smmix_mm

project = 'smmix_mm'
version = release = smmix_mm.__version__
root_doc = 'docs/index'
include_patterns = [
    'README.md',
    'CHANGELOG.md',
    'docs/*.md',
    'configs/README.md',
    'configs/*/README.md',
    'tests/data/README.md',
]
# For readers of the repository; the site has docs/index.md.
exclude_patterns = ['docs/README.md']

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode', 'sphinx_copybutton']
# Headings are linked by the names that GitHub gives them.
myst_heading_anchors = 4
# Links to folders, of which the site has no pages, become text. tests/test_docs.py checks where links lead.
suppress_warnings = ['myst.xref_missing']

autodoc_default_options = {'members': True, 'member-order': 'groupwise', 'show-inheritance': True}
autodoc_typehints = 'description'
autodoc_inherit_docstrings = False
autodoc_class_signature = 'separated'
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = 'furo'
html_title = f'smmix_mm {version}'
html_copy_source = False
html_math_renderer = 'mathml'


def show_formula(writer: HTML5Translator, node: math) -> None:
    """As MathML, which browsers draw without a script from the network."""
    writer.body.append(convert(node.astext(), display='block' if isinstance(node, math_block) else 'inline'))
    raise SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer('mathml', (show_formula, None), (show_formula, None))
    return dict(parallel_read_safe=True)
