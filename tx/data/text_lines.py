"""Lines of text that a user gives, from a corpus' files or to be translated: read in one way."""

from collections.abc import Sequence

from tx.errors import UserError

LONGEST = 1 << 20  # characters of a line: with 16 to a subword, the most there are, none of a million fits a row


def split_lines(data: bytes, where: object, longest: int | None = LONGEST) -> list[str]:
    """Returns the lines of UTF-8 text, without a byte-order mark at the start; an empty text has none.

    Lines end at "\\n" alone: other separators (U+2028, U+0085, form feed) stand inside sentences.

    Args:
      where: a path or another name for messages.
      longest: characters that a line may have; None where it may have any number.

    Raises:
      UserError: not UTF-8, or too long a line, with its number.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(f"{where}, line {line}: not UTF-8; convert the file (for instance with iconv)") from None
    lines = text.removesuffix("\n").split("\n") if text else []
    if longest is not None:
        refuse_long(lines, where, longest)
    return lines


def refuse_long(lines: Sequence[str], where: object, longest: int = LONGEST, first: int = 1) -> None:
    """Raises UserError for a line of too many characters; nothing that reads sentences gets through one in any time.

    Args:
      where: a path or another name for messages.
      longest: characters that a line may have.
      first: the number of the first line.
    """
    for number, line in enumerate(lines, first):
        if len(line) > longest:
            raise UserError(
                f"{where}, line {number}: {len(line):,} characters; a line is one sentence, of {longest:,} at most"
            )
