"""Settings of the documentation site: `make docs` builds it, offline and without warnings."""

from __future__ import annotations

import re
import shutil
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
TRY = ROOT / "build" / "try"  # made by `make try`; carried where it is there
sys.path.insert(0, str(DOCS))

from api_pages import write_api_pages  # noqa: E402 - lies beside this file

project = "restore-rwkv"
author = "The restore-rwkv authors"
project_copyright = "The restore-rwkv authors, Apache-2.0"
version = release = installed_version("restore-rwkv")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"restore-rwkv {version}"
html_static_path: list[str] = []

default_role = "code"  # docstrings write `names` with single backticks
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes as a list, described once

myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # README starts anew below the title of the page

# Pages that are files of the repository, read in place of the stub of that name.
PAGES = {
    "getting-started": "README.md",
    "contributing": "CONTRIBUTING.md",
    "changelog": "CHANGELOG.md",
    "examples": "examples/README.md",
    "security": "SECURITY.md",
}
SITE_OF = {name: f"{page}.md" for page, name in PAGES.items()}


def _link(match: re.Match[str], folder: Path) -> str:
    """A link as the site has it: to a page, a picture or a place elsewhere; else its text."""
    mark, text, target = match.groups()
    if "://" in target or target.startswith("#"):
        return match[0]
    path, hash_, anchor = target.partition("#")
    place = (folder / path).resolve()
    if not place.exists():
        raise FileNotFoundError(f"{match[0]}: {place} does not exist; correct the link")
    if place.is_relative_to(DOCS):
        return f"{mark}[{text}]({place.relative_to(DOCS).as_posix()}{hash_}{anchor})"
    page = SITE_OF.get(place.relative_to(ROOT).as_posix())
    return f"{mark}[{text}]({page}{hash_}{anchor})" if page else f"{mark}{text}"


def _read_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the file of a page in place of its stub, and lead its links to the site."""
    file = ROOT / PAGES[docname] if docname in PAGES else DOCS / f"{docname}.md"
    if not file.exists():  # an API page, which has no links of its own
        return
    text = file.read_text(encoding="utf-8") if docname in PAGES else source[0]
    if docname == "try" and (TRY / "index.html").is_file():
        link = '<p><strong><a href="try/index.html">Open the page</a></strong></p>'
        text = text.replace("<!-- the page -->", link)
    links = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
    code = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)
    source[0] = "".join(
        part if part.startswith("```") else links.sub(lambda link: _link(link, file.parent), part)
        for part in code.split(text)
    )


def _carry_page(app: Sphinx, exception: Exception | None) -> None:
    """Copy the page that restores in the browser into the site, beside its document."""
    if exception is None and app.builder.format == "html" and (TRY / "index.html").is_file():
        shutil.rmtree(Path(app.outdir) / "try", ignore_errors=True)
        shutil.copytree(TRY, Path(app.outdir) / "try")


def _plain_docstring(
    app: Sphinx, what: str, name: str, object_: object, options: object, lines: list[str]
) -> None:
    """Have a docstring read as it is written here, without marks that are only for Sphinx.

    An indented equation below a line that ends in a colon is printed as it stands, and the colon
    in "Bytes in all: ..." of a property does not make "Bytes in all" its type.
    """
    for i, line in enumerate(lines[:-2]):
        indented = lines[i + 2].startswith(" " * (len(line) - len(line.lstrip()) + 4))
        if line.endswith(":") and not line.endswith("::") and not lines[i + 1].strip() and indented:
            lines[i] = f"{line}:"
    if what == "property":
        lines.insert(0, "")


def setup(app: Sphinx) -> None:
    """Register what happens before pages are read."""
    app.connect("builder-inited", lambda app: write_api_pages(DOCS / "api"))
    app.connect("source-read", _read_page)
    app.connect("build-finished", _carry_page)
    app.connect("autodoc-process-docstring", _plain_docstring, priority=400)  # before napoleon
