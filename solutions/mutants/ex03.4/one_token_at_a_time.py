"""Counts the tokens that agree, whether they fill a block or not.

property: only full blocks are shared
told: block_size=2
"""


def cached_tokens(tokens, salt, earlier, block_size):
    hits = 0
    for text, other in earlier:
        same = 0
        while other == salt and same < min(len(text), len(tokens) - 1) and text[same] == tokens[same]:
            same += 1
        hits = max(hits, same)
    return hits
