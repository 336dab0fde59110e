"""Sphinx: ``python -m sphinx -W -b html docs docs/_build``, from the top of the checkout."""

import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# The checkout is documented, whatever else is installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from py2p_twisted import __version__, errors

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
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 80

# Light and dark, wide and narrow; whoever builds these pages without it gets Sphinx's own.
html_theme = "furo" if find_spec("furo") else "alabaster"
html_title = f"py2p_twisted {release}"
html_show_sourcelink = False


def without_floors(
    app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Modules say on which floor of the house they stand; readers of the API need not know."""
    if what == "module":
        text = re.sub(r" \(floor \d[^)]*\)", "", "\n".join(lines))
        lines[:] = text.splitlines()


def to_errors(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """Docstrings name errors as their readers do, without the module."""
    name = node.get("reftarget")
    if node.get("refdomain") != "py" or name not in errors.__all__:
        return None
    full = f"{errors.__name__}.{name}"
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", full, node, contnode)


def setup(app: Any) -> None:
    """Sphinx: what happens besides."""
    app.connect("missing-reference", to_errors)
    app.connect("autodoc-process-docstring", without_floors)
