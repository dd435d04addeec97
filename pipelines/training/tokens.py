"""The tokenizer of the bundled model: lower-case whole words that the world knows, and pieces of other words.

Built from the texts of the visual world, at most 8,000 entries, and saved as `tokenizer.json` beside the weights, so
that open_clip finds it in the model's folder without a network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    import torch

PAD, END, UNKNOWN = "[PAD]", "[END]", "[UNK]"
VOCABULARY_MAX = 8_000
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
ENDINGS = (
    "s",
    "es",
    "ed",
    "er",
    "ers",
    "ing",
    "ings",
    "ly",
    "y",
    "ish",
    "like",
    "man",
    "ness",
    "ful",
    "less",
)


def build(texts: Iterable[str]) -> Tokenizer:
    """Return a WordPiece tokenizer that knows every word of these texts, and pieces of others; texts end in `END`.

    Raises:
        ValueError: the texts have too many words.
    """
    normalizer, splitter = (
        normalizers.BertNormalizer(lowercase=True, strip_accents=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    letters = sorted({letter for word in words for letter in word} | set(LETTERS))
    pieces = [*letters, *(f"##{end}" for end in (*letters, *ENDINGS))]
    vocabulary = list(dict.fromkeys([PAD, END, UNKNOWN, *pieces, *sorted(words)]))
    if len(vocabulary) > VOCABULARY_MAX:
        raise ValueError(f"a vocabulary has at most {VOCABULARY_MAX} entries, this one {len(vocabulary)}")
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(vocabulary)}, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens([PAD, END, UNKNOWN])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 1)])
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the files that transformers' AutoTokenizer reads from a folder."""
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def encoder(tokenizer: Tokenizer, context: int) -> Callable[[list[str]], torch.Tensor]:
    """Return a function from texts to token ids, called like the tokenizers of open_clip.

    Args:
        tokenizer: The tokenizer.
        context: Tokens a text.

    Returns:
        A function that returns int64 (texts, context), ending in `END` and padded.
    """
    import torch

    tokenizer.enable_truncation(context)
    tokenizer.enable_padding(pad_id=0, pad_token=PAD, length=context)

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])

    return encode
