"""Exercise 03: the paged KV cache, one decision at a time. Plain Python: integers, lists and a hash.

Memory is cut into blocks of `block_size` tokens. Two lists say all that there is to know of it:

  free    list of block ids   blocks that nobody holds, next to be handed out first
  table   list of block ids   the blocks of one request, in order of position

Block 0 is the null block: it is never handed out, so that whatever points nowhere can point at it. A free
block keeps its contents until it is handed out again, and someone may still want them (ex03.4). So a freed
block goes to the end of the list, and of one request's blocks the last goes before the first: the beginning
of a text is what others are most likely to share.

A request on board is a dict:

  id          its number
  prompt      tokens of its prompt
  generated   tokens it has been given so far
  computed    tokens whose keys and values are stored: all but the one that was generated last
  table       its blocks; they hold what is computed, and there may be no room for one token more

Each part returns the new state and leaves the old one as it was: whoever called it may want to compare.

Check your work with `lesson check ex03` in a terminal, or with `check("ex03")` in a notebook cell. The inputs
are fresh each time. What has to hold, besides plain good manners (an answer of the right form, inputs left as
they were, no call that goes on forever):

ex03.1 allocate, append, release, free_list
  - block 0 is never handed out
  - whoever fits gets a table, and nobody else does
  - no block is lost and none is held twice
  - a table has just the blocks that its tokens need
  - a table grows at its end
  - the block that has been free longest is handed out first
  - freed blocks go to the end of the list, the last one first

ex03.2 admit
  - nobody is lost and nobody is counted twice
  - a request that can never fit is rejected by name
  - nobody overtakes
  - everyone on board has a slot
  - a step computes no more tokens than its budget
  - a prompt that boards has memory for all of it
  - the watermark stays free for those on board
  - an empty car needs no watermark
  - whoever fits boards in this step
  - a prompt is read as far as the budget goes

ex03.3 preempt
  - nobody is lost and nobody is counted twice
  - whoever stays on board keeps all that they have
  - the blocks of the thrown out come back
  - those who stay can grow
  - nobody is thrown out without need
  - the last in is the first out
  - the thrown out go to the front of the queue, in the order in which they rode
  - generated tokens are kept
  - what was computed is computed again
  - freed blocks go to the end of the list, the last one first

ex03.4 cached_tokens, block_hashes
  - only full blocks are shared
  - at least one token is left to compute
  - nothing is shared between salts
  - a block is a hit only where all before it agrees
  - whatever is stored is found
  - only full blocks have a hash
  - a hash is the sha256 of the parent and the tokens, from the salt on
"""

import hashlib
from array import array


def allocate(free: list[int], num_tokens: int, block_size: int) -> tuple[list[int], list[int] | None]:
    """ex03.1: a table for a request that boards.

    Args:
        free: the free blocks, as above; there may be none.
        num_tokens: tokens that the table has to hold, at least 1.
        block_size: tokens a block.

    Returns:
        (free, table) after the blocks were taken from the front of `free`. Where too few are free, nothing is
        taken and there is no table: (free, None).
    """
    raise NotImplementedError("ex03.1: allocate is not written yet")


def append(
    free: list[int], table: list[int], num_tokens: int, block_size: int
) -> tuple[list[int], list[int] | None]:
    """ex03.1: the table of a request that grows.

    Args:
        free, table: as above. The table may have room to spare.
        num_tokens: tokens that the table has to hold in all, those that it holds already included.
        block_size: tokens a block.

    Returns:
        (free, table) after the missing blocks were taken from the front of `free`, or (free, None), with
        nothing taken, where too few are free.
    """
    raise NotImplementedError("ex03.1: append is not written yet")


def release(free: list[int], table: list[int]) -> list[int]:
    """ex03.1: the free blocks after a request has let go of its table.

    Args:
        free, table: as above.
    """
    raise NotImplementedError("ex03.1: release is not written yet")


def free_list(num_blocks: int) -> list[int]:
    """ex03.1: the free blocks of a new pool, the lowest first.

    Args:
        num_blocks: blocks in memory, the null block included; at least 2.
    """
    raise NotImplementedError("ex03.1: free_list is not written yet")


def admit(
    waitlist: list[int],
    prompts: list[int],
    running: int,
    slots: int,
    num_free: int,
    num_blocks: int,
    block_size: int,
    watermark: int,
    token_budget: int,
) -> tuple[list[tuple[int, int]], list[int], list[int]]:
    """ex03.2: who boards in this step.

    Those on board go first: each takes a slot and one token of the step's budget. Then those who wait board,
    first come, first served, and nobody overtakes: where the first one cannot board, nobody does. Whoever boards
    takes a slot, blocks for the whole prompt, and as many tokens of the budget as the prompt can use, at
    least one; a prompt that is longer than that is read on in the next step. As many blocks as
    the watermark says stay free, so that those on board can grow; where nobody is on board, nobody needs them.

    A request whose prompt is larger than all of memory would hold up the queue forever. It is rejected at
    once, wherever it waits.

    Args:
        waitlist: ids of the requests that wait, first come first.
        prompts: tokens of each request's prompt; a request's id is its place here.
        running: how many are on board.
        slots: how many may be on board at once.
        num_free: blocks that nobody holds.
        num_blocks: blocks in memory, the null block included.
        block_size: tokens a block.
        watermark: blocks to keep free while someone is on board.
        token_budget: tokens that the step may compute, at least one a slot.

    Returns:
        (boarded, waitlist, rejected): (id, tokens of its prompt read in this step) of each request that
        boards, in order; the ids that still wait; and the ids that were rejected, both in the order in which
        they waited.
    """
    raise NotImplementedError("ex03.2: admit is not written yet")


def preempt(
    running: list[dict], waiting: list[dict], free: list[int], block_size: int
) -> tuple[list[dict], list[dict], list[int]]:
    """ex03.3: who is thrown out, so that everyone else on board can store one token more.

    A request whose table is full needs one more block for that. While there are too few for all who stay,
    whoever boarded last goes, until there are enough. The thrown out lose their blocks, and with them all
    that was computed, but not a word of what they were told: when they board again, prompt and generated
    tokens are computed together. They wait in front of everyone else.

    Args:
        running: requests on board, in the order in which they boarded. Each of them would fit alone.
        waiting: requests that wait, next to board first; they hold nothing.
        free: the free blocks, as above.
        block_size: tokens a block.

    Returns:
        (running, waiting, free) afterwards. Nobody has grown yet: that is for `append` to do.
    """
    raise NotImplementedError("ex03.3: preempt is not written yet")


def block_hashes(tokens: list[int], salt: str, block_size: int) -> list[str]:
    """ex03.4: what each full block of a text can be found by.

    Keys and values at a position depend on every token before it. So the hash of a block is made of its own
    tokens and of the hash of the block before, its parent, which was made in the same way: it stands for the
    whole text up to the end of the block. The chain starts at the salt, so that tenants who share nothing
    find nothing.

      the first block's parent     the sha256 of the salt (`salt.encode()`)
      the hash of a block          the sha256 of the parent's 32 bytes (`.digest()`) followed by the block's
                                   tokens, 8 bytes each (`array("q", tokens).tobytes()`)

    Args:
        tokens: the ids of the text's tokens.
        salt: the tenant's secret; "" for none.
        block_size: tokens a block.

    Returns:
        The hash of each full block, in order, as 64 hexadecimal digits (`.hexdigest()`, or `.hex()` of the
        bytes).
    """
    raise NotImplementedError("ex03.4: block_hashes is not written yet")


def cached_tokens(tokens: list[int], salt: str, earlier: list[tuple[list[int], str]], block_size: int) -> int:
    """ex03.4: how many tokens of a new prompt need not be computed, since blocks that hold them are stored.

    At least one token is left to compute, whatever is stored: without it there would be nothing to sample the
    next one from. A block is shared whole or not at all.

    Args:
        tokens: the new prompt, at least one token.
        salt: its tenant's.
        earlier: (tokens, salt) of each text whose blocks are stored.
        block_size: tokens a block.
    """
    raise NotImplementedError("ex03.4: cached_tokens is not written yet")
