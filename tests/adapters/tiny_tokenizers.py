"""Small tokenizers of every kind that transformers has, trained on a few captions."""

from __future__ import annotations

import json
from typing import Any

CAPTIONS = [
    "a brown dog runs on the green grass .",
    "a man's red ball, two cats and a dog",
    "the dogs are running in the snow",
    "describe this image in one sentence . caption en",
    "what does the image describe ? user assistant answer",
]
"""The training text of the tokenizers."""


def word_pieces() -> Any:
    """BERT's: lower case, pieces with ##."""
    from transformers import BertTokenizer

    words = sorted(
        {w for text in CAPTIONS for w in text.replace("'", " ").replace(",", "").split()}
    )
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocabulary = [
        *special,
        *words,
        "##s",
        "##ing",
        "##ball",
        "'",
        ",",
        "s",
        "snow",
        "\u72d7",
    ]
    return BertTokenizer(vocab={word: i for i, word in enumerate(dict.fromkeys(vocabulary))})


def train_byte_bpe(size: int = 330) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a byte-level BPE."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CAPTIONS * 4, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def byte_pairs(
    kind: str = "GPT2Tokenizer", extra: dict[str, str] | None = None, **special: str
) -> Any:
    """GPT-2's, OPT's, BART's, Qwen's: bytes, and pairs of them; `extra` are special tokens."""
    import transformers

    vocabulary, merges = train_byte_bpe()
    for token in special.values():
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer: Any = getattr(transformers, kind)(
        vocab=vocabulary, merges=merges, extra_special_tokens=extra or {}, **special
    )
    return tokenizer


def unigram() -> Any:
    """T5's: pieces by their probability, with a marker for a space."""
    from transformers import T5Tokenizer

    words = sorted({w.strip(",") for text in CAPTIONS for w in text.split()})
    letters = sorted(set("".join(CAPTIONS)) - {" "})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(f"\u2581{word}", -4.0) for word in words] + [("ing", -5.0)]
    pieces += [(letter, -8.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def sentence_pieces(kind: str = "LlamaTokenizer", **special: str) -> Any:
    """Llama's and Gemma's: pairs of pieces, bytes for all else, with a marker for a space."""
    import transformers

    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", **special}
    vocabulary = {token: i for i, token in enumerate(special.values())}
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    merges: list[tuple[str, str]] = []
    for letter in ["\u2581", *sorted(set("".join(CAPTIONS) + "USERAINT:\n") - {" "})]:
        vocabulary.setdefault(letter, len(vocabulary))
    for word in sorted({w for text in CAPTIONS for w in text.split() if w.isalpha()}):
        whole = "\u2581"
        for letter in word:
            pair = (whole, letter)
            whole += letter
            if whole not in vocabulary:
                vocabulary[whole] = len(vocabulary)
                merges.append(pair)
    tokenizer: Any = getattr(transformers, kind)(vocab=vocabulary, merges=merges, **special)
    return tokenizer


def with_special_tokens(tokenizer: Any, *special_tokens: str) -> Any:
    """The tokenizer with these special tokens added."""
    tokenizer.add_special_tokens({"additional_special_tokens": list(special_tokens)})
    return tokenizer
