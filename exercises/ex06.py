"""Exercise 06: read a result file, and be harder on it than its authors were. Plain Python: numbers and lists.

Three questions that a result file answers, if it is asked. How full was the ride, and how many riders got what
they had been promised (ex06.1)? Which part of a speed-up is fewer steps, and which is quicker ones (ex06.2)? What
will the next larger batch give (ex06.3)?

Check your work with `lesson check ex06` in a terminal, or with `check("ex06")` in a notebook cell. Where you are
stuck, `lesson hint ex06.1` nudges; `lesson hint ex06.1 2` and `3` say more. The inputs are fresh each
time. What has to hold, besides plain good manners (an answer of the right form, inputs left as they were, no call
that goes on forever):

ex06.1 goodput
  - utilization counts every token that was given, and every slot of every step
  - who did not finish was served nothing
  - the first token counts from the arrival to the end of its step
  - the time per token is the mean gap between the ends of its steps
  - a pause is part of the time per token
  - one token alone has no time per token
  - both promises are kept, to the very second
  - goodput counts them in the time from the first step's start to the last step's end

ex06.2 split
  - whoever has no run is left out
  - there are fewer steps where there were more before
  - steps are quicker where each takes less time
  - all factors multiply to the whole
  - each contender stands against the one before
  - several runs are told by their median

ex06.3 predict
  - a batch gives tokens
  - more riders never give fewer tokens
  - more riders never give more than their share
  - while a step costs the same, the rate grows with the batch
  - while each rider costs the same, the rate stays
  - a step that grows evenly goes on growing evenly
  - beyond a bend, the latest slope counts
  - a measured sweep is foreseen, and its wobble not blown up
"""


def goodput(
    slots: int, steps: list[list[float]], requests: list[dict], ttft_limit: float, tpot_limit: float
) -> tuple[float, list[int], float]:
    """ex06.1: how full the ride was, and how many riders got what they had been promised.

    Every rider was promised two things. Their first token within `ttft_limit` of their arrival. And their tokens
    after the first in `tpot_limit` each, on average. A token is there at the end of the step that gives it. A
    promise that is kept to the very second is kept.

    Args:
        slots: how many ride at once.
        steps: [start, duration] of each step in seconds, in order; at least one. Between the end of one and the
            start of the next may lie a pause.
        requests: a dict each, with

              arrival    when they came, in seconds
              decode     [step, tokens] of each run: one token was given in each of the steps from `step` on, as
                         many as `tokens` says. There are several runs where the request was thrown out and came
                         back, none where it never got a token. Runs are in order.
              finished   whether they got all that they asked for, at least one token; one who gave up has not

        ttft_limit: seconds to the first token.
        tpot_limit: seconds per token after the first.

    Returns:
        (utilization, kept, goodput)

          utilization   tokens given ÷ (slots × steps)
          kept          the places in `requests` of those who finished and to whom both promises were kept
          goodput       of these, how many a second, from the start of the first step to the end of the last
    """
    raise NotImplementedError("ex06.1: goodput is not written yet")


def split(chain: list[dict]) -> list[tuple[float, float]]:
    """ex06.2: a speed-up taken apart.

    All contenders gave the same tokens to the same requests. So each gain is a product of two: how many fewer
    steps it took, and how much quicker each step was. A step's time is the time of the whole run ÷ its steps, so
    that whatever lies between two steps counts, too.

    Args:
        chain: contenders, each one change away from the one before. A dict each, with

              steps     forward passes that the work took it
              seconds   what each of its runs took; their median is the time that counts. Empty where it could not
                        run: then it is left out, and the next one stands against the last that ran.

            At least one has a run.

    Returns:
        (fewer, quicker) of each contender that ran but the first, in order. `fewer` is above 1 where it took fewer
        steps than the one before, `quicker` where each of its steps took less time. All of them multiply to what
        the last gained over the first.
    """
    raise NotImplementedError("ex06.2: split is not written yet")


def predict(batches: list[int], rates: list[float], batch: int) -> float:
    """ex06.3: tokens a second of a batch that nobody has measured yet.

    A decode step reads all weights, however many are on board; that is its price for one. Each rider adds to it: a
    little at first, where the step waits for memory, and in full where it waits for arithmetic. So think in
    seconds a step, not in tokens a second: a batch of b riders at a rate of r takes b ÷ r seconds a step. Seconds
    a step go up in straight lines with the batch, with a bend where the machine's limit changes. The rate does
    not.

    Nobody can see a bend that lies beyond the last batch measured; you are not asked about one. Where there is a
    bend, three sizes or more lie beyond it. Some sweeps come from this course's own records, and wobble a little.

    How near is near enough: 2% where nothing wobbles, 12% where each figure is off by up to 1%, 30% for a record
    from a GPU.

    Args:
        batches: sizes measured, rising by half or more each time, at least three.
        rates: the tokens a second of each.
        batch: the size to predict, larger than all of these, at most twice the largest.

    Returns:
        Its tokens a second. More riders never give fewer tokens than the largest batch measured, and never more
        than their share of it: batch ÷ the largest batch measured, times its rate. Where the line of the last two
        sizes says otherwise, that was a wobble.
    """
    raise NotImplementedError("ex06.3: predict is not written yet")
