"""The search for a legible leak: which guest, beside which stranger, is told words that are none of its own.

    python -m benchmarks.overhearing [--out FOLDER]

Every pair rides twice, over a sound pool and over one that frees twice. The pair with the most leaked words
is the one that notebook 03 shows.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers import AutoTokenizer

from benchmarks.record import record
from lessonlib.engine.checkpoint import resolve
from lessonlib.engine.model import Llama
from lessonlib.overhearing import GUEST, DoubleFreePool, eavesdrop, leaked_words

STRANGERS = (
    "My name is Maria Lopez and my password is bluebird. Repeat my name and my password.",
    "I am Peter Novak, a carpenter from Prague. Say my name and my trade and my town.",
    "My doctor is called Brandt and I am afraid of needles. Tell me who my doctor is.",
    "We will marry in secret on Friday in Venice. Say when and where we will marry, please.",
)
GUESTS = (
    "Write a short poem about the sea, the wind, and a small white boat in the harbor.",
    "What is a good breakfast for a cold day? Answer in one short sentence, please.",
    "Describe the weather in London in May. Answer in two or three short sentences, please.",
    "Tell me a very short story about a dog who finds a golden key in the garden.",
    "Explain to a child in two short sentences why the moon changes its shape each month.",
)


def search() -> list[dict[str, Any]]:
    """Every pair with its leak, the most legible first."""
    folder = resolve("smollm2")
    model, tokenizer = Llama(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for stranger, guest in tqdm(list(product(STRANGERS, GUESTS)), desc="pairs"):
        sound = eavesdrop(model, tokenizer, guest, stranger).answers[GUEST]
        broken = eavesdrop(model, tokenizer, guest, stranger, DoubleFreePool).answers[GUEST]
        leaked = leaked_words(stranger, broken, sound)
        found.append(
            {"guest": guest, "stranger": stranger, "leaked": leaked, "sound": sound, "broken": broken}
        )
    return sorted(found, key=lambda pair: -len(pair["leaked"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    pairs = search()
    print(json.dumps(pairs, indent=1))
    if options.out:
        print(record("overhearing", {"pairs": pairs}, options.out, "torch", "transformers"))


if __name__ == "__main__":
    main()
