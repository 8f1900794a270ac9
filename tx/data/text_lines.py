"""Lines of text that a user gives, from a corpus' files or to be translated: read in one way."""

from tx.errors import UserError


def split_lines(data: bytes, where: object) -> list[str]:
    """Returns the lines of UTF-8 text, without a byte-order mark at the start; an empty text has none.

    Lines end at "\\n" alone: other separators (U+2028, U+0085, form feed) stand inside sentences.

    Args:
      where: a path or another name for messages.

    Raises:
      UserError: not UTF-8, with the number of the line.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}, line {line}: not UTF-8; convert the file (for instance with iconv)") from None
    return text.removesuffix("\n").split("\n") if text else []
