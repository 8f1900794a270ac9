"""Generated tables inside a README: each stands between a line <!-- table: NAME --> and a line <!-- end table -->."""

import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence

from tx.errors import UserError, writing
from tx.files import read_text, replace_text

_MARKED = re.compile(r"^(<!-- table: (\S+) -->\n)(.*?)^(<!-- end table -->)$", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(r"^<!-- (?:table: |end table)", re.MULTILINE)


def renew(
    readme: pathlib.Path,
    ours: Callable[[str], bool],
    render: Callable[[Sequence[str]], Mapping[str, str]],
    check: bool,
) -> int:
    """Puts fresh tables between the markers whose names are `ours`, and leaves all others alone, and the ends of lines.

    Args:
      readme: the file.
      ours: whether this caller makes the table of that name.
      render: {name: Markdown} for the names that were found; raises UserError for one it has nothing for.
      check: change nothing.

    Returns 1 if `check` found a table other than `render` gives now, else 0. Raises UserError for a file that cannot
    be read and for a marker without its end.
    """
    try:
        text = read_text(readme)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {readme}: {error}") from None
    ends = "\r\n" if "\r\n" in text else "\n"
    text = text.replace("\r\n", "\n")
    found = {match[2]: match[3] for match in _MARKED.finditer(text)}
    if len(_MARKER.findall(text)) != 2 * sum(1 for _ in _MARKED.finditer(text)):
        raise UserError(f"{readme}: every <!-- table: NAME --> line needs its <!-- end table --> line")
    wanted = [name for name in found if ours(name)]
    rendered = render(wanted) if wanted else {}
    fresh = _MARKED.sub(lambda m: f"{m[1]}{rendered.get(m[2], m[3])}{m[4]}", text)
    if check and fresh != text:
        stale = [name for name in wanted if found[name] != rendered[name]]
        print(f"{readme} is stale: {', '.join(stale)}; run again without --check", file=sys.stderr)
        return 1
    if fresh != text:
        with writing(readme):
            replace_text(readme, fresh.replace("\n", ends))
    return 0
