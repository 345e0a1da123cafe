"""Exercise 02: the waitlist scheduler, one part at a time. NumPy and lists.

The state of the car is two arrays and a list:

  occupant   int64 [slots]         id of the request in each slot, NOBODY (-1) where the slot is free
  remaining  int64 [slots]         tokens that the request in each slot still wants, 0 where the slot is free
  waitlist   list of request ids   who has not boarded yet, next to board first
  lengths    int64 [num_requests]  tokens that each request asks for; a request's id is its place here

Each part returns the new state and leaves the old one as it was: whoever called it may want to compare.

Check your work with `lesson check ex02` in a terminal, or with `check("ex02")` in a notebook cell. The inputs
are fresh each time. What has to hold, besides plain good manners (an answer of the right form, inputs left as
they were, no call that goes on forever):

ex02.1 refill
  - whoever is on board keeps their slot
  - a freed slot is refilled for the next step
  - who has boarded no longer waits
  - first come, first served
  - the lowest free slot is filled first
  - a new request has its whole length to go

ex02.2 step
  - everyone on board gets one token
  - an empty slot stays empty
  - whoever has their last token leaves the slot free
  - whoever still wants tokens stays
  - the tokens given are those who rode

ex02.3 static_batching
  - nobody boards until the car is empty
  - the next batch boards as soon as the car is empty
  - utilization is tokens given over slots times steps
  - the ride is made of refill and step

ex02.4 continuous_batching
  - a token is there when its step ends
  - the time counts from the request's own arrival
  - nobody boards before they have arrived
  - first come, first served
  - no more ride at once than there are slots
  - a free slot is taken for the next step while anybody waits
  - the loop is made of refill and step
"""

import numpy as np

NOBODY = -1


def refill(
    occupant: np.ndarray, remaining: np.ndarray, waitlist: list[int], lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """ex02.1: those who wait board the free slots, first come first served, lowest free slot first.

    Args:
        occupant, remaining, waitlist, lengths: the state, as above. Perhaps no slot is free, perhaps nobody waits.

    Returns:
        (occupant, remaining, waitlist) after boarding.
    """
    raise NotImplementedError("ex02.1: refill is not written yet")


def step(occupant: np.ndarray, remaining: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """ex02.2: one decoding step: everyone on board gets one token; whoever has their last one leaves.

    Args:
        occupant, remaining: the state, as above.

    Returns:
        (occupant, remaining, tokens) after the step; `tokens` is how many were given in it.
    """
    raise NotImplementedError("ex02.2: step is not written yet")


def static_batching(lengths: np.ndarray, slots: int) -> tuple[int, float]:
    """ex02.3: a whole ride of static batching, made of `refill` and `step`: board only into an empty car.

    All requests wait at the start, in the order of their ids. The numbers alone could come from a formula. The loop
    is what you will need next, so the check counts the calls of `refill` and `step`, by these names.

    Args:
        lengths: int64 [num_requests], at least one, each at least 1.
        slots: how many ride at once, at least 1.

    Returns:
        (steps, utilization): steps until everyone is home, and tokens given ÷ (slots × steps).
    """
    raise NotImplementedError("ex02.3: static_batching is not written yet")


def continuous_batching(lengths: np.ndarray, arrivals: np.ndarray, slots: int) -> np.ndarray:
    """ex02.4: the loop of a server, made of `refill` and `step`: before each step, whoever has arrived may board.

    The clock counts steps. It begins at 0, when the first request arrives. A request that arrives at 3 may board for
    the step from 3 to 4, and then has its first token at 4. There may be nobody to carry for a while, with more to
    come.

    Args:
        lengths: int64 [num_requests], at least one, each at least 1.
        arrivals: int64 [num_requests], when each request arrives, ascending, the first at 0.
        slots: how many ride at once, at least 1.

    Returns:
        ttft: int64 [num_requests], the time to first token in steps: from each request's arrival to the end of the
        step that gives it its first token.
    """
    raise NotImplementedError("ex02.4: continuous_batching is not written yet")
