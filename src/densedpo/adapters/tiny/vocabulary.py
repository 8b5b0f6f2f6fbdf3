"""The shipped text encoder's vocabulary: every word that a caption of the world can hold, written out by the tables.

Anything else becomes `<unk>`. Trained vocabularies are not reproducible (ties between equal frequencies), so this one
is a list: ids never move as long as new words are added at the end.
"""

from __future__ import annotations

from typing import Final

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from densedpo.world.scene import BACKGROUNDS, COLOURS, MOTIONS, SHAPES, SIZES, SPEED_WORDS

MAX_SEQUENCE_LENGTH: Final = 16  # the longest caption has 13 words, then </s>
SPECIALS: Final = ("<pad>", "</s>", "<unk>")


def words() -> list[str]:
    """All words, in the order of their ids after the special tokens."""
    phrases = [*SHAPES, *COLOURS, *BACKGROUNDS, *SIZES, *MOTIONS, *SPEED_WORDS.values()]
    phrases += [direction for directions in MOTIONS.values() for direction in directions]
    phrases += ["a", "on", "background"]
    return list(dict.fromkeys(word for phrase in phrases for word in phrase.split()))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer, lower-casing, that ends every text with `</s>`."""
    vocabulary = {word: index for index, word in enumerate([*SPECIALS, *words()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_SEQUENCE_LENGTH,
    )
