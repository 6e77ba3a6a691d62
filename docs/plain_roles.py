"""A hook of mkdocs: docstrings name things as ``:class:`Settings```, which Markdown does not know."""

import re

ROLE = re.compile(r":(?:class|func|meth|attr|mod):\s*<code>[~.]*")


def on_page_content(html: str, **_: object) -> str:
    """Leave the names as code."""
    return ROLE.sub("<code>", html)
