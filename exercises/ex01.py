"""Exercise 01: how full does the elevator ride? Plain Python.

A length is a number of steps: a request of length n gets one token in each of n steps. All requests wait at
the start, in the order of the list. Utilization is tokens given ÷ (slots × steps).

Check your work with `lesson check ex01` in a terminal, or with `check("ex01")` in a notebook cell. The inputs
are fresh each time. What has to hold, besides plain good manners (an answer of the right form, inputs left as
they were, no call that goes on forever):

ex01.1 static_utilization
  - utilization is never above one
  - a batch lasts as long as its longest request
  - a slot that nobody boarded is paid for as well
  - the next batch boards when the last of this one has left

ex01.2 expected_static_utilization
  - utilization is never above one
  - lengths that cannot vary waste nothing
  - one slot never waits
  - the expected longest is exact, for whole lengths

ex01.3 drain
  - utilization is never above one
  - the ride lasts at least as long as its longest request
  - a freed slot is refilled for the next step
  - requests board whole, in the order in which they wait
  - the drain is every step that has an empty slot
"""


def static_utilization(lengths: list[int], slots: int) -> float:
    """ex01.1: utilization of static batching.

    The next `slots` requests board when everyone of the batch before them has left. The last batch may be
    smaller than the car.

    Args:
        lengths: steps that each request rides, in boarding order; at least one, each at least 1.
        slots: how many ride at once, at least 1.

    Returns:
        Tokens given ÷ (slots × steps), above 0 and at most 1.
    """
    raise NotImplementedError("ex01.1: static_utilization is not written yet")


def expected_static_utilization(low: int, high: int, slots: int) -> float:
    """ex01.2: what a long run of static batching tends to, when lengths are drawn evenly from low … high.

    That is the mean length ÷ the expected longest of `slots` lengths. Both ends are possible lengths, and
    lengths are whole, so no estimate is needed: the answer is exact but for rounding.

    Args:
        low: shortest possible length in steps, at least 1.
        high: longest possible length in steps, at least `low`, at most 1,000.
        slots: how many ride at once, 1 to 256.

    Returns:
        The expected utilization, above 0 and at most 1.
    """
    raise NotImplementedError("ex01.2: expected_static_utilization is not written yet")


def drain(lengths: list[int], slots: int) -> tuple[int, int]:
    """ex01.3: how long continuous batching takes for a list that ends, and how long its drain is.

    A freed slot takes the next request for the very next step. When nobody waits any more, freed slots stay
    empty: from then on the car drains.

    Args:
        lengths: steps that each request rides, in boarding order; at least one, each at least 1.
        slots: how many ride at once, at least 1.

    Returns:
        (steps, draining): all steps until everyone is home, and how many of them had an empty slot.
    """
    raise NotImplementedError("ex01.3: drain is not written yet")
