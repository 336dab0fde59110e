"""Sphinx: ``python -m sphinx -W -b html docs docs/_build``, from the top of the checkout."""

import sys
from pathlib import Path

# The checkout is documented, whatever else is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from py2p_twisted import __version__  # noqa: E402 - the path comes first

project = "py2p_twisted"
author = "the py2p_twisted maintainers"
copyright = author
version = release = __version__

extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
default_role = "py:obj"
add_module_names = False
highlight_language = "text"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "alabaster"
html_theme_options = {
    "description": "One dictionary of bytes, shared by programs on a Chord ring",
    "page_width": "1000px",
    "fixed_sidebar": True,
}
html_show_sourcelink = False
