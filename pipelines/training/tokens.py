"""The small model's own tokenizer: lower-case whole words where the world knows them, pieces of words where not.

Built from the texts of the visual world, at most 8,000 entries, saved as `tokenizer.json` beside the weights so that
open_clip finds it in the model's folder and needs no network.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

if TYPE_CHECKING:
    import torch

PAD, END, UNKNOWN = "[PAD]", "[END]", "[UNK]"
VOCABULARY_MAX = 8_000


def build(texts: Iterable[str], *, vocabulary: int = 6_000) -> Tokenizer:
    """A WordPiece tokenizer over these texts; every text it encodes ends in `END`."""
    if vocabulary > VOCABULARY_MAX:
        raise ValueError(f"a vocabulary has at most {VOCABULARY_MAX} entries")
    tokenizer = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=[PAD, END, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(list(texts), trainer)
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
    """Texts to ids [N, context], ending in `END`, padded to `context`, as open_clip does."""
    import torch

    tokenizer.enable_truncation(context)
    tokenizer.enable_padding(pad_id=0, pad_token=PAD, length=context)

    def encode(texts: list[str]) -> torch.Tensor:
        return torch.tensor([encoding.ids for encoding in tokenizer.encode_batch(texts)])

    return encode
