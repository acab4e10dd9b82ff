"""Which language a text is in. lingua does it (an extra: 96 MB); its models are loaded on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bqbuild.core.errors import BuildError, did_you_mean

INSTALL_HINT = "`pip install 'bqbuild[language]'`, or `pip install lingua-language-detector`"

COMMON = (
    "ar", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id",
    "it", "ja", "ko", "nb", "nl", "pl", "pt", "ro", "ru", "sv", "th", "tr", "uk", "vi", "zh",
)  # fmt: skip
"""Languages that a text may be taken for besides those a rule allows. All 75 of lingua would take a gigabyte and ten
seconds to load, and short English texts for Sotho."""

MAX_CHARACTERS = 4000
"""As much of a text as is looked at."""


DOUBT = 1 / 3
"""A text stays if an allowed language is at least this likely, compared with the likeliest: of a few words ("Define
mitosis.") nobody can say more. Longer texts leave no such doubt."""

NOT_RECOGNISED = "no language recognised"


class LanguageDetector:
    """Detects languages, by ISO 639-1 codes, among those allowed and the common ones."""

    def __init__(self, allowed: Sequence[str]) -> None:
        """Raises BuildError where lingua is not installed or an allowed code is not one it knows."""
        try:
            import lingua
        except ImportError as error:
            raise BuildError(
                "a `language` rule needs lingua, which is not installed",
                hint=INSTALL_HINT,
            ) from error
        known = {language.iso_code_639_1.name.lower(): language for language in lingua.Language.all()}
        wanted = [code for given in allowed for code in _codes(given)]
        unknown = [code for code in wanted if code not in known]
        if unknown:
            hint = did_you_mean(unknown[0], known) or f"the codes are {' '.join(sorted(known))}"
            raise BuildError(
                f"`{unknown[0]}` is not a language code (ISO 639-1) that lingua knows",
                hint=hint,
            )
        self._allowed = frozenset(wanted)
        candidates = sorted({*wanted, *COMMON})
        builder = lingua.LanguageDetectorBuilder.from_languages(*[known[code] for code in candidates])
        self._detector: Any = builder.build()

    def reasons(self, texts: Sequence[str]) -> list[str | None]:
        """For each text, why it is not in an allowed language, or None."""
        found = self.detect(texts)
        doubtful = [number for number, code in enumerate(found) if code is not None and code not in self._allowed]
        allowed_after_all = self._may_be_allowed([texts[number] for number in doubtful])
        kept = {number for number, may_be in zip(doubtful, allowed_after_all, strict=True) if may_be}
        return [
            None if code in self._allowed or number in kept else f"language is {code}" if code else NOT_RECOGNISED
            for number, code in enumerate(found)
        ]

    def detect(self, texts: Sequence[str]) -> list[str | None]:
        """The most likely language of each text; None where nothing speaks for one (numbers, formulas, no text)."""
        found = self._detector.detect_languages_in_parallel_of([text[:MAX_CHARACTERS] for text in texts])
        return [_code(language) if language is not None else None for language in found]

    def _may_be_allowed(self, texts: Sequence[str]) -> list[bool]:
        """Whether an allowed language is not much less likely than the most likely one."""
        shortened = [text[:MAX_CHARACTERS] for text in texts]
        return [
            max(value.value for value in values if _code(value.language) in self._allowed)
            >= DOUBT * max(value.value for value in values)
            for values in self._detector.compute_language_confidence_values_in_parallel(shortened)
        ]


def _code(language: Any) -> str:
    return str(language.iso_code_639_1.name.lower())


def _codes(given: str) -> tuple[str, ...]:
    """lingua knows the two written forms of Norwegian and not the macrolanguage."""
    code = given.strip().lower()
    return ("nb", "nn") if code == "no" else (code,)
