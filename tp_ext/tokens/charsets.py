"""Common Chinese characters, from the national standards that chose them."""

from __future__ import annotations

from tp_ext.tokens.characters import is_chinese, is_han

STANDARDS = {
    "simplified, common": ("gb2312", range(0xB0, 0xD8), range(0xA1, 0xFF)),
    "simplified, less common": ("gb2312", range(0xD8, 0xF8), range(0xA1, 0xFF)),
    "traditional, common": ("big5", range(0xA4, 0xC7), [*range(0x40, 0x7F), *range(0xA1, 0xFF)]),
    "punctuation and full-width forms": ("gb2312", range(0xA1, 0xA4), range(0xA1, 0xFF)),
}
"""GB/T 2312-1980, levels 1 and 2 (3,755 and 3,008 characters); Big5, level 1 (5,401); GB/T 2312-1980, rows 1 to 3. Each
with its Python codec and the ranges of its two bytes."""


def common_characters() -> dict[str, str]:
    """The characters of each standard that the ones before it do not have, in the standard's order."""
    known: set[str] = set()
    found = {}
    for name, (codec, leads, trails) in STANDARDS.items():
        wanted = is_chinese if name.startswith("punctuation") else is_han
        pairs = [bytes([lead, trail]).decode(codec, "ignore") for lead in leads for trail in trails]
        found[name] = "".join(character for character in pairs if character and wanted(character) and character not in known)
        known.update(found[name])
    return found
