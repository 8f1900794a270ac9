"""Pictures of a page in a browser: `python tests/screenshots.py report.html FOLDER` makes them, light, dark, phone."""

import pathlib
import sys

import browser

SCREENS = {  # name: (width, height, dark, phone)
    "light": (1200, 800, False, False),
    "dark": (1200, 800, True, False),
    "phone": (390, 844, False, True),
}


def main(page, folder):
    """Writes them."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with browser.opened() as tab:
        for name, (width, height, dark, phone) in SCREENS.items():
            tab.screen(width, height, dark, phone)
            tab.open(pathlib.Path(page).resolve().as_uri())
            tab.until("document.documentElement.scrollWidth <= innerWidth")
            (folder / f"{name}.png").write_bytes(tab.picture())


if __name__ == "__main__":
    main(*sys.argv[1:])
