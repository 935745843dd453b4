"""Script: rows drawn from the moments of old tokens in the same script and position."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from warmstart.foundation.settings import Settings
from warmstart.vocabulary.computed import ComputedMix
from warmstart.vocabulary.mix import RowMix, moments
from warmstart.vocabulary.rows._base import RowContext, initialisers
from warmstart.vocabulary.tokens import CanonicalToken

_NAMES = """
    latin common cyrillic han arabic devanagari greek adlam ahom anatolianhieroglyphs armenian avestan
    balinese bamum bassavah batak bengali bhaiksuki bopomofo brahmi braille buginese buhid
    canadianaboriginal carian caucasianalbanian chakma cham cherokee chorasmian coptic cuneiform cypriot
    cyprominoan deseret divesakuru dogra duployan egyptianhieroglyphs elbasan elymaic ethiopic garay
    georgian glagolitic gothic grantha gujarati gunjalagondi gurmukhi gurungkhema hangul hanifirohingya
    hanunoo hatran hebrew hiragana imperialaramaic inherited inscriptionalpahlavi inscriptionalparthian
    javanese kaithi kannada katakana kawi kayahli kharoshthi khitansmallscript khmer khojki khudawadi
    kiratrai lao lepcha limbu lineara linearb lisu lycian lydian mahajani makasar malayalam mandaic
    manichaean marchen masaramgondi medefaidrin meeteimayek mendekikakui meroiticcursive meroitichieroglyphs
    miao modi mongolian mro multani myanmar nabataean nagmundari nandinagari newa newtailue nko nushu
    nyiakengpuachuehmong ogham olchiki oldhungarian olditalic oldnortharabian oldpermic oldpersian
    oldsogdian oldsoutharabian oldturkic olduyghur olonal oriya osage osmanya pahawhhmong palmyrene
    paucinhau phagspa phoenician psalterpahlavi rejang runic samaritan saurashtra sharada shavian siddham
    signwriting sinhala sogdian sorasompeng soyombo sundanese sunuwar sylotinagri syriac tagalog tagbanwa
    taile taitham taiviet takri tamil tangsa tangut telugu thaana thai tibetan tifinagh tirhuta todhri toto
    tulutigalari ugaritic vai vithkuqi wancho warangciti yezidi yi zanabazarsquare
"""
SCRIPTS = tuple(_NAMES.split())
"""Scripts of Unicode 16, the most frequent first; characters of none of them are `unknown`."""


class ScriptSettings(Settings):
    """Options of `script`."""

    position: bool = True
    """Keep tokens that start a word apart from those inside one (`+POSN`)."""


@dataclass(frozen=True)
class CategoryRows:
    """Rows from the diagonal normal distribution of the source rows of the same category.

    Attributes:
        target: `(V_target,)` category of each target row.
        source: `(V_source,)` category of each source row, -1 where it counts for none.
        categories: Number of categories.
    """

    target: np.ndarray
    source: np.ndarray
    categories: int

    def __call__(
        self,
        ids: np.ndarray,
        rows: np.ndarray,
        *,
        reference: np.ndarray | None,
        rng: np.random.Generator,
        **_: object,
    ) -> np.ndarray:
        """`(len(ids), d)` rows in the precision of `rows`."""
        centre, spread = self.table(rows, reference)
        out = np.empty((len(ids), rows.shape[1]), dtype=rows.dtype)
        for start in range(0, len(ids), 1024):
            category = self.target[ids[start : start + 1024]]
            noise = rng.standard_normal((len(category), rows.shape[1]))
            out[start : start + 1024] = centre[category] + noise * spread[category]
        return out

    def table(self, rows: np.ndarray, reference: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Mean and deviation `(categories, d)`; those of all rows where a category has fewer than two."""
        mu, sd = moments(rows, reference)
        centre, spread = np.tile(mu, (self.categories, 1)), np.tile(sd, (self.categories, 1))
        members = np.bincount(self.source[self.source >= 0], minlength=self.categories)
        for category in np.flatnonzero(members >= 2):
            centre[category], spread[category] = moments(rows, np.flatnonzero(self.source == category))
        return centre, spread


@initialisers.register(
    "script",
    settings=ScriptSettings,
    title="Embedding structure matters: Comparing methods to adapt multilingual vocabularies to new "
    "languages",
    arxiv="2309.04679",
    tags=("dense", "fallback"),
)
def script(context: RowContext, settings: ScriptSettings) -> RowMix:
    """`E_t[n] ~ N(mu_c, diag(sd_c²))`, c being the script of n and whether it starts a word.

    Rows of a multilingual model cluster by script and by word position, and this puts new rows into the right
    cluster without any text. REINIT-SCRIPT of the paper is `position: false` with `copy_overlap: false`;
    `position` adds POSN and copying the overlap, the default, adds IDENT.

    The script of a token is the one most of its characters have, the space mark left out; of equally frequent
    ones the first in the token. Parts of UTF-8 characters are a category of their own. A category that the
    source does not have, or only once, takes the moments of all rows (the released code leaves an unseen one
    at N(0, 1), far off the scale of trained rows, and a single member has no deviation). Special tokens
    neither count in a category nor are drawn; the released code, read literally, overwrites them as common
    characters. An untied head has moments of its own.

    Returns:
        A mix whose new rows hold no weights but a distribution, `(V_target, V_source)`.
    """
    known: dict[Any, int] = {}
    source = np.full(context.shape[1], -1, dtype=np.int64)
    found = categories(context.vocab.source, known, position=settings.position)
    source[: len(found)] = found
    target = np.zeros(context.shape[0], dtype=np.int64)
    found = categories(context.vocab.target, known, position=settings.position)
    target[: len(found)] = np.maximum(found, 0)  # special rows are not drawn
    return ComputedMix.of(context.shape, context.wanted, CategoryRows(target, source, max(1, len(known))))


def categories(tokens: Sequence[CanonicalToken], known: dict[Any, int], *, position: bool) -> np.ndarray:
    """Number of each token's category `(len(tokens),)`, -1 for special ones; `known` gains the new ones."""
    found = np.full(len(tokens), -1, dtype=np.int64)
    for number, token in enumerate(tokens):
        if token.role is None:
            label = script_of(token.text) if token.is_text else "bytes"
            found[number] = known.setdefault((label, position and token.starts_word), len(known))
    return found


def script_of(text: str) -> str:
    """The script of most characters; of equally frequent ones the first.

    >>> script_of("Füße1"), script_of("1ж"), script_of("жf1ж")
    ('latin', 'common', 'cyrillic')
    """
    counts = Counter(_script_of_character(character) for character in text)
    return counts.most_common(1)[0][0] if counts else "common"


@functools.lru_cache(maxsize=65536)
def _script_of_character(character: str) -> str:
    match = _pattern().match(character)
    return str(match.lastgroup) if match else "unknown"


@functools.cache
def _pattern() -> Any:
    import regex

    return regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS))
