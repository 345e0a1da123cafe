"""Compares texts block by block and goes on after a miss.

property: a block is a hit only where all before it agrees
told: cached_tokens(tokens=[
"""


def cached_tokens(tokens, salt, earlier, block_size):
    size = block_size
    texts = [text for text, other in earlier if other == salt]
    hits = 0
    for start in range(0, len(tokens) - size, size):
        block = tokens[start : start + size]
        hits += size * any(text[start : start + size] == block for text in texts)
    return hits
