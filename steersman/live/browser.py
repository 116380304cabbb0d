"""The page in a browser, by a file that only its user can read: a command line is there for every user to see."""

import atexit
import os
import shutil
import tempfile
import webbrowser
from html import escape
from pathlib import Path

PAGE = """<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>Steersman live</title>
<meta http-equiv="refresh" content="0; url={address}"><a href="{address}">Steersman live</a>
"""


def leading_to(address: str) -> Path:
    """A page of mode 0600 that leads to an address; it is taken away when the program ends."""
    folder = Path(tempfile.mkdtemp(prefix="steersman-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    page = folder / "live.html"
    with open(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(PAGE.format(address=escape(address)))
    return page


def opened(address: str) -> None:
    """Opens an address in a browser; some wait for its end."""
    webbrowser.open(leading_to(address).as_uri())
