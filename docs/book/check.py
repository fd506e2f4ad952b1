"""Check a built site: every link leads somewhere, and nothing is loaded from another host.

    python docs/book/check.py outputs/book

Links within the site must be relative, so that it works from a folder and under any address; their targets
and fragments must exist. Links that a reader may follow to other sites are not opened. Only Python's own
library is needed.
"""

import argparse
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urldefrag, urlsplit

# Attributes by which a browser fetches something by itself, and those that a reader follows.
LOADS = {"src", "srcset", "data", "poster", "background"}
FOLLOWS = {"href", "action", "cite"}
LINK_LOADS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest", "preconnect"}
CSS_LOAD = re.compile(r"""url\(\s*["']?([^"')]+)["']?\s*\)|@import\s+["']([^"']+)["']""")


class Report(NamedTuple):
    """What a site holds, and what is wrong with it."""

    pages: int
    links: int  # within the site
    size: int  # bytes
    broken: list[str]  # page: link
    external: list[str]  # page: what it loads from another host

    def __str__(self) -> str:
        return (
            f"{self.pages} pages, {self.size / 1e6:.1f} MB, {self.links} links, "
            f"{len(self.broken)} broken, {len(self.external)} loads from other hosts"
        )


class Page(HTMLParser):
    """The addresses and anchors of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self._style = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what the attributes of an element name."""
        found = {name: value or "" for name, value in attrs}
        self._style = tag == "style"
        self.anchors.update(found[name] for name in ("id", "name") if name in found)
        loads = tag == "link" and LINK_LOADS & set(found.get("rel", "").split())
        for name, value in found.items():
            if name == "srcset":
                self.loads += [part.split()[0] for part in value.split(",") if part.strip()]
            elif name in LOADS or (name in FOLLOWS and loads):
                self.loads.append(value)
            elif name in FOLLOWS and tag != "link":
                self.links.append(value)
            elif name == "style":
                self.loads += css_loads(value)

    def handle_data(self, data: str) -> None:
        """Keep what a style sheet within the page loads."""
        if self._style:
            self.loads += css_loads(data)

    def handle_endtag(self, tag: str) -> None:
        """Leave a style sheet."""
        self._style = self._style and tag != "style"


def css_loads(text: str) -> list[str]:
    """Return the addresses that a style sheet loads."""
    return [one or other for one, other in CSS_LOAD.findall(text)]


def check_site(site: Path) -> Report:
    """Return what is wrong with a site.

    Raises:
        FileNotFoundError: there is no page.
    """
    site = site.resolve()
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    if not pages:
        raise FileNotFoundError(f"{site}: holds no page; build the book first, by `make book`")
    loads = {path: page.loads for path, page in pages.items()}
    loads |= {path: css_loads(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.css"))}
    broken, external, count = [], [], 0
    for path, loaded in loads.items():
        name = path.relative_to(site).as_posix()
        external += [f"{name}: {address}" for address in loaded if not _is_own(address, "data", "blob")]
        inside = filter(_is_own, loaded + (pages[path].links if path in pages else []))
        for address in inside:
            count += 1
            if not _exists(address, path, site, pages):
                broken.append(f"{name}: {address}")
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    return Report(len(pages), count, size, broken, external)


def _is_own(address: str, *schemes: str) -> bool:
    """Return whether an address is of this site, or has one of these schemes."""
    return not address.startswith("//") and urlsplit(address).scheme in ("", *schemes)


def _exists(address: str, page: Path, site: Path, pages: dict[Path, Page]) -> bool:
    place, fragment = urldefrag(address)
    place = unquote(place.partition("?")[0])
    if place.startswith("/"):
        return False  # leaves the site where it lies under a sub-path
    target = (page.parent / place).resolve() if place else page
    if target.is_dir():
        target /= "index.html"
    if not target.is_relative_to(site) or not target.is_file():
        return False
    return not fragment or target not in pages or unquote(fragment) in pages[target].anchors


def main() -> int:
    """Check a site, say what is wrong, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site", type=Path)
    report = check_site(parser.parse_args().site)
    for line in report.broken:
        print(f"broken link in {line}")
    for line in report.external:
        print(f"loaded from another host by {line}")
    print(report)
    return 1 if report.broken or report.external else 0


if __name__ == "__main__":
    sys.exit(main())
