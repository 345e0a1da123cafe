"""Three hints for each task, from a nudge to nearly the answer, and the worked answer itself, on request."""

from __future__ import annotations

from pathlib import Path

from lessonlib.checks.runner import EXERCISES
from lessonlib.errors import CourseError
from lessonlib.layout import SOLUTIONS, find_folder, source
from lessonlib.regions import functions_of

HINTS: dict[str, tuple[str, str, str]] = {
    "ex01.1": (
        "How long does a batch last when one request in it is much longer than the others?",
        "Cut the list into batches of `slots`. A batch takes as many steps as its longest request; the batches "
        "ride one after another.",
        "steps is the sum of max(batch) over lengths[0:slots], lengths[slots:2*slots], …; the answer is "
        "sum(lengths) / (slots * steps). The last batch may be smaller, and its empty slots are paid for.",
    ),
    "ex01.2": (
        "The numerator is the mean length. What is the chance that the longest of `slots` lengths is at most n?",
        "All are at most n with probability ((n - low + 1) / (high - low + 1)) ** slots. The longest is exactly "
        "n where all are at most n, but not all at most n - 1.",
        "Add up n * (P(all at most n) - P(all at most n - 1)) for n from low to high: that is the expected "
        "longest. Divide (low + high) / 2 by it.",
    ),
    "ex01.3": (
        "You need not ride step by step. From which step on is each slot free?",
        "Keep one number for each slot, 0 at first. The next request takes the slot that is free first, and "
        "makes that number larger by its length.",
        "After the last request the ride takes max(free_at) steps. The first slot to run dry does so at "
        "min(free_at), and from there on the car drains: the second answer is the difference.",
    ),
    "ex02.1": (
        "Two things must match: how many slots are free, and how many people wait. The smaller number boards.",
        "np.flatnonzero(occupant == NOBODY) names the free slots, lowest first. Copy the arrays before you write.",
        "boarding = waitlist[:len(free)]; slots = free[:len(boarding)]; write boarding into occupant[slots] and "
        "lengths[boarding] into remaining[slots] of the copies; the rest of the waitlist still waits.",
    ),
    "ex02.2": (
        "Who is on board before the step decides who gets a token. Who has none left after it leaves.",
        "on_board = occupant != NOBODY is an array of 0 and 1 that can be taken from remaining.",
        "remaining = remaining - on_board; whoever was on board and has 0 now leaves: np.where(leaving, NOBODY, "
        "occupant). The tokens are on_board.sum(), as an int.",
    ),
    "ex02.3": (
        "Both parts are written. The only new question is when `refill` may be called.",
        "Begin with an empty car and everyone on the waitlist. While anybody waits or rides, call `step`; call "
        "`refill` before it, if the whole car is empty.",
        "if (occupant == NOBODY).all(): refill. Then step, count one step and its tokens. At the end "
        "(steps, tokens / (slots * steps)).",
    ),
    "ex02.4": (
        "It is the loop of ex02.3 without the question whether the car is empty. What is new is the clock: who is on "
        "the waitlist at each step?",
        "Begin with an empty waitlist and a clock at 0. Before each step, put those with arrivals <= clock on the "
        "waitlist, call `refill`, and see whose slot has changed. Then `step`, and the clock is one later.",
        "Compare the occupants before and after `refill`: occupant[occupant != before] are the ids that boarded. "
        "Their first token is there at clock + 1. Go on while anybody waits or is still to come; at the end take "
        "away the arrivals.",
    ),
    "ex03.1": (
        "How many blocks do n tokens need? Try it with one token, with a full block, and with one token more.",
        "The number is -(-num_tokens // block_size). `allocate` is `append` to an empty table. Where too few are "
        "free, nothing may have been taken.",
        "missing = max(0, needed - len(table)); if missing > len(free): (free, None); else (free[missing:], "
        "table + free[:missing]). `release` is free + table[::-1]. The null block keeps `free_list` from 0.",
    ),
    "ex03.2": (
        "Whose turn it is, is settled by the waitlist. You only decide how far down you get in this step.",
        "First set aside whoever needs more than num_blocks - 1 blocks. Then walk down the list with three "
        "shrinking numbers: free slots, tokens of the budget (one each is gone for those on board), free blocks. "
        "Stop at the first one who cannot board.",
        "Stop where running == slots, where budget == 0, or where needed > num_free - (watermark if running else "
        "0). Else the request gets min(prompt, budget) tokens and its whole prompt's blocks. `running` grows in "
        "the loop, so the second to board finds somebody there.",
    ),
    "ex03.3": (
        "How many blocks will this step ask for? Count the full tables of those who are on board.",
        "A table is full where computed == len(table) * block_size. While more are full than blocks are free, "
        "the last of `running` goes, and with it its own demand.",
        "In the loop: last = running.pop(); free = release(free, last['table']); waiting.insert(0, {**last, "
        "'computed': 0, 'table': []}). Work on copies of both lists, and leave `generated` alone.",
    ),
    "ex03.4": (
        "Each hash is made with the hash before it. What is the first one made with?",
        "parent = sha256 of the salt. For each full block: parent = sha256(parent + the block's bytes).digest(), "
        "and its hex digits go on the list. A half block has no hash.",
        "For `cached_tokens`, put the hashes of all earlier texts into a set, each with its own salt. Walk along "
        "block_hashes(tokens[:-1], salt, block_size), and stop at the first that is not in it. Leaving off the "
        "last token is what keeps one to compute.",
    ),
    "ex04.1": (
        "What was added up so far is in units of the old best. What has to happen to it when the best changes?",
        "new_best is the larger of best and scores.max(). Old total and acc both shrink by exp(best - new_best); "
        "the tile's weights are exp(scores - new_best).",
        "Where everything so far is -inf, -inf - -inf is NaN: take 0 away then, in the place of new_best. "
        "total * correction + weights.sum(), and acc * correction + weights @ values.",
    ),
    "ex04.2": (
        "Where does token 17 lie, with blocks of 16? In which block of the table, and at which place in it?",
        "tokens // block_size is the entry of the table, tokens % block_size the place. Look up only what the "
        "length needs: the other entries may be any number.",
        "tokens = np.arange(length); cache[blocks[tokens // block_size], tokens % block_size] is all of it.",
    ),
    "ex04.3": (
        "A weight of 0 times NaN is NaN. So which of the two arrays does a score of -inf not protect?",
        "Give each column its position, first_token + np.arange(tile). A row sees positions up to its own "
        "last_visible; values from `length` on are nobody's.",
        "np.where(tokens[None, :] <= last_visible[:, None], scores, -inf) and np.where((tokens < length)[:, None], "
        "values, 0.0). np.where and not a product: NaN * 0 is NaN.",
    ),
    "ex04.4": (
        "Two totals in different units cannot be added. Bring both to the larger best first.",
        "Each piece counts exp(its best - the larger best) times. For an empty piece that is exp(-inf), which is 0.",
        "Add up total * correction and acc * correction of both pieces; the answer is the second sum divided by "
        "the first.",
    ),
    "ex04.5": (
        "Begin with one program for each sequence and K/V head, and one loop over tiles of tokens. It is ex04.1 "
        "to ex04.3 with `tl` in front.",
        "A token's block is tl.load(block_table + seq * max_blocks + token // BLOCK_SIZE), masked by token < "
        "length and brought to int64. Its key begins at ((block * BLOCK_SIZE + token % BLOCK_SIZE) * kv_heads + "
        "kv_head) * DIM. Mask values as well as keys, with other=0.0.",
        "Per tile: scores = where(seen, tl.dot(q, k.T) * scale, -inf); new_best = maximum(best, max(scores, 1)); "
        "weights = exp2(scores - new_best[:, None]) with log2(e) counted into scale; shrink total and acc by "
        "exp2(best - new_best). After the loop divide by total, by 1 where it is 0. Rows beyond the group are "
        "masked in load and store; a tile of rows has at least 16.",
    ),
    "ex05.1": (
        "Write down one row by hand: which positions does it compute in this step, and where do they go?",
        "The positions are range(computed, computed + scheduled), counted in the request. The place of position p "
        "is table[p // block_size] * block_size + p % block_size.",
        "query_start_loc begins with [0]; after each row append len(token_ids). seq_lens gets computed + "
        "scheduled. At the end fill every table with 0 up to the longest.",
    ),
    "ex05.2": (
        "Sort those on board into two groups first. What tells a writer from a reader?",
        "A reader has num_computed_tokens < prefill_target. Serve writers, readers, then as many of the waiting "
        "as there are free slots.",
        "Each lacks prompt_tokens + num_output_tokens - num_computed_tokens and gets the smaller of that and what "
        "is left of the budget. Whoever would get 0 is left out.",
    ),
    "ex05.3": (
        "Walk over `running`, not over `sampled`: some of the sampled have left already.",
        "Where num_computed_tokens < len(token_ids), the token means nothing, and the request stays as it is. "
        "Else append it to a copy, and ask in this order: does a token end it? Is the count reached?",
        "stops = token in stop_token_ids or (token in eos_token_ids and not ignore_eos). Whoever leaves gives back "
        "its slot (sorted) and block_table[::-1] at the end of free; the answer is token_ids[prompt_tokens:].",
    ),
    "ex06.1": (
        "Everything follows from one list a request: the steps in which it was given a token. "
        "Its length is the request's tokens.",
        "A token is there at start + duration of its step. TTFT is the first of these times less the arrival; "
        "the time per token is the last less the first, divided by one less than there are.",
        "Count tokens for utilization before you ask who finished. Then skip those who did not; for the others "
        "test `ttft <= ttft_limit` and, where there are two tokens or more, `tpot <= tpot_limit`. Divide how many "
        "are left by `steps[-1][0] + steps[-1][1] - steps[0][0]`.",
    ),
    "ex06.2": (
        "Time is steps × seconds a step. So a ratio of two times is a product of two ratios.",
        "Bring each contender to (steps, median of its seconds ÷ steps) first, and drop those without a run. Then "
        "look at neighbors.",
        "For neighbors (steps, pace) and (steps2, pace2): `(steps / steps2, pace / pace2)`. The median of an even "
        "number of runs is the mean of the middle two: `statistics.median` knows.",
    ),
    "ex06.3": (
        "Print batch ÷ rate for each size: seconds a step. Which shape do you see, and where does it change?",
        "The machine's limit at the next size is that of the last two sizes. What does one more rider cost a step "
        "between these two?",
        "`slope = (seconds[-1] - seconds[-2]) / (batches[-1] - batches[-2])`, kept between 0 and "
        "`seconds[-1] / batches[-1]`; then the step takes `seconds[-1] + slope * (batch - batches[-1])`, and the "
        "rate is batch ÷ that.",
    ),
}


def hint(task: str, number: int = 1) -> str:
    """Hint 1 nudges, 3 nearly gives it away.

    Raises `CourseError` for an unknown task or another number.
    """
    if task not in HINTS:
        there = [each for each in HINTS if each.startswith(f"{task}.")] or HINTS
        raise CourseError(f"no hints for {task!r}: there are some for {', '.join(there)}")
    if number not in (1, 2, 3):
        raise CourseError(f"no hint {number} for {task}: give 1 to 3")
    return f"{HINTS[task][number - 1]}\n(hint {number} of 3)"


def solution(task: str, folder: str | Path = SOLUTIONS) -> str:
    """The worked answer of one task: its functions as they stand in `folder`, or in what the course came with.

    Raises `CourseError` for an unknown task, or where the folder is not there (an instructor may keep it back).
    """
    for exercise in EXERCISES.values():
        for each in exercise.tasks:
            if each.id == task:
                path = _worked(folder, f"{exercise.id}.py")
                return functions_of(path.read_text(encoding="utf-8"), task)
    known = ", ".join(each.id for exercise in EXERCISES.values() for each in exercise.tasks)
    raise CourseError(f"unknown task {task!r}: there is {known}")


def _worked(folder: str | Path, name: str) -> Path:
    """Raises `CourseError` where there is no such file in the folder, nor in what the course came with."""
    try:
        found = find_folder(folder) / name
    except CourseError:
        found = source() / folder / name
    if not found.is_file():
        raise CourseError(f"no worked answer at {Path(folder, name)}: ask whoever teaches the course")
    return found
