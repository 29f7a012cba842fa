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
"""What the tokenizers are trained on."""


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
        "yellow",
    ]
    return BertTokenizer(vocab={word: i for i, word in enumerate(dict.fromkeys(vocabulary))})


def bytes_trained(size: int = 330) -> tuple[dict[str, int], list[tuple[str, str]]]:
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
    kind: str = "GPT2Tokenizer", named: dict[str, str] | None = None, **special: str
) -> Any:
    """GPT-2's, OPT's, BART's, Qwen's: bytes, and pairs of them; `named` are special tokens."""
    import transformers

    vocabulary, merges = bytes_trained()
    for token in special.values():
        vocabulary.setdefault(token, len(vocabulary))
    made: Any = getattr(transformers, kind)(
        vocab=vocabulary, merges=merges, extra_special_tokens=named or {}, **special
    )
    return made


def unigram() -> Any:
    """T5's: pieces by their probability, with a mark for a space."""
    from transformers import T5Tokenizer

    words = sorted({w.strip(",") for text in CAPTIONS for w in text.split()})
    letters = sorted(set("".join(CAPTIONS)) - {" "})
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -3.0)]
    pieces += [(f"\u2581{word}", -4.0) for word in words] + [("ing", -5.0)]
    pieces += [(letter, -8.0) for letter in letters]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def sentence_pieces(kind: str = "LlamaTokenizer", **special: str) -> Any:
    """Llama's and Gemma's: pairs of pieces, bytes for all else, with a mark for a space."""
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
    made: Any = getattr(transformers, kind)(vocab=vocabulary, merges=merges, **special)
    return made


def with_marks(tokenizer: Any, *marks: str) -> Any:
    """The tokenizer with more special tokens, and `<image>` known as that of a picture."""
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    return tokenizer
