"""Exercise 07: on call. Plain Python: dictionaries, lists and numbers.

Somewhere a scheduler is broken, and all you have is the recording of a ride. What broke, which number proves it, and
when did it begin (ex07.1)? Write the guard that stops such rides, and lets every sound one by (ex07.2). Then set up
a server for a load and a promise (ex07.3).

Your three tickets are drawn for your name; put it into `on_call`. Read them in a notebook:

    from lessonlib.incidents import tickets
    from lessonlib.viz import Elevator

    mine = tickets("ada")      # your name
    mine[0]                    # what people say, and six causes to choose from
    Elevator(mine[0].trace)    # the ride
    mine[0].ride               # the same as your functions get it
    tickets("ada", 1)          # other rides with the same causes; then 2, 3, …

`sound_rides()` of the same module gives rides of a sound scheduler, `sound_rides(1)` others. In a terminal,
`lesson tickets NAME --save FOLDER` prints the tickets and writes a page for each ride.

A ride is a dictionary:

  slots, blocks           what the car and its memory hold
  block_size              tokens a block
  budget                  tokens that a step may compute
  watermark               blocks that a boarding beside others leaves free
  patience                steps that a request waits for each tier below the best; 0: there are no tiers
  requests                a dictionary each: prompt, limit (tokens it asks for), tier, tenant, and ids, the token ids
                          of its prompt, None where nothing is shared
  steps                   a dictionary each, requests by their number:

      start, duration     when the step began, and how long it took
      arrived             request → when it arrived, for those that this step sees first
      preempted           requests that were thrown out before the step ran; they wait again
      boarded             request → tokens of it that were found stored
      prefill             request → tokens read: its prompt, or all that it had if it was thrown out before
      decode              requests that got a token
      finished, gave_up   requests for which it was the last step
      on_board            request → slot, for all who were on board while the step ran
      known               request on board → tokens it had before the step, of prompt and answer
      stored              request on board → tokens that are stored after the step
      held                request on board → blocks it held
      queue               requests that waited while the step ran, in order of arrival
      free_blocks         blocks that were free while the step ran
      overheard           request → blocks it read that another had written

A request's claim is its arrival: who came first boards first, and is thrown out last. With tiers it is the step of
the arrival, and `patience` more for each tier below the best.

Check your work with `lesson check ex07` in a terminal, or with `check("ex07")` in a notebook cell. Where you are
stuck, `lesson hint ex07.1` nudges; `lesson hint ex07.1 2` and `3` say more. The rides are fresh each time. What has
to hold, beside plain good manners (an answer of the right form, inputs left as they were, no call that goes on for
ever):

ex07.1 diagnose, on_call
  - the cause is one of those on the tickets, word for word
  - the cause is the one that was planted
  - the step is the first in which it shows
  - the number is that of this step

ex07.2 is_sound
  - a guard that lets every ride by guards nothing
  - a guard that stops every ride is a locked door
  - a sound ride goes by, whatever the load
  - a ride with the cause of a ticket is stopped
  - what breaks the same law in another way is stopped too

ex07.3 choose
  - the policy is one that this server has
  - the server starts: 1 to 64 slots, and a token for each of them in the budget
  - no step takes longer than a pause may
  - no more ride than memory carries to the end of their answers
  - who is in a hurry is read as fast as the promise allows
"""


def on_call() -> str:
    """ex07.1: who is on call.

    Returns:
        Your name. Your tickets are drawn for it, here and wherever your answers are graded: keep it as it is once you
        have begun.
    """
    # >>> solution
    # stub: raise NotImplementedError("ex07.1: on_call is not written yet")
    return "ada"
    # <<< solution


def diagnose(ride: dict) -> tuple[str, float, int]:
    """ex07.1: what broke in this ride.

    You get rides that you have not seen: each has the cause of one of your three tickets, with other requests and
    from another moment on.

    Args:
        ride: see above.

    Returns:
        (cause, number, step)

          cause    as on your ticket, word for word
          number   what the ticket says beside the cause, counted in that step
          step     the first step, from 0, in which it shows: the number is above 0
    """
    # >>> solution
    # stub: raise NotImplementedError("ex07.1: diagnose is not written yet")
    size = ride["block_size"]
    for at, step in enumerate(ride["steps"]):
        computed = sum(step["prefill"].values()) + sum(each not in step["prefill"] for each in step["decode"])
        empty = ride["slots"] - len(step["on_board"])
        waits_in_vain = step["queue"] and not step["preempted"] and computed < ride["budget"]
        numbers = {
            "a table grows one step late": sum(
                -(-known // size) - step["held"][each] for each, known in step["known"].items()
            ),
            "a slot is never filled again": empty if waits_in_vain else 0,
            "each chunk of a prompt counts as a token": sum(
                step["known"][each] - step["stored"][each] for each in step["decode"]
            ),
        }
        for cause, number in numbers.items():
            if number > 0:
                return cause, number, at
    return "", 0, 0
    # <<< solution


def is_sound(ride: dict) -> bool:
    """ex07.2: whether a sound scheduler can have ridden this.

    The causes of your tickets break three laws: what holds in every step of a sound ride. Others, which you have not
    seen, break the same laws in other ways. Stop them all, and stop nothing else: a guard that cries wolf is switched
    off within a week.

    Args:
        ride: see above.

    Returns:
        True where the three laws hold in every step.
    """
    # >>> solution
    # stub: raise NotImplementedError("ex07.2: is_sound is not written yet")

    def blocks_for(tokens: int) -> int:
        return -(-tokens // ride["block_size"])

    given = [0] * len(ride["requests"])
    for step in ride["steps"]:
        # Everyone on board holds the blocks that their tokens take.
        for each, known in step["known"].items():
            if step["held"][each] != blocks_for(known):
                return False

        # A token comes when all tokens before it are stored.
        for each in step["decode"]:
            if step["stored"][each] != step["known"][each]:
                return False

        # Where a slot is empty and the first of the queue fits, it boards.
        computed = sum(step["prefill"].values()) + sum(each not in step["prefill"] for each in step["decode"])
        may_board = step["queue"] and not step["preempted"] and computed < ride["budget"]
        if may_board and len(step["on_board"]) < ride["slots"]:
            first = step["queue"][0]
            needed = blocks_for(ride["requests"][first]["prompt"] + given[first])
            kept = ride["watermark"] if step["on_board"] else 0
            if needed <= step["free_blocks"] - kept:
                return False

        for each in step["decode"]:
            given[each] += 1
    return True
    # <<< solution


def choose(
    requests: list[list[float]], machine: dict, ttft_limit: float, pause_limit: float
) -> tuple[str, int, int]:
    """ex07.3: how to set up a server so that most riders get what they were promised.

    Every rider was promised two things: their first token within `ttft_limit` seconds of their arrival, and no pause
    longer than `pause_limit` seconds between any two of their tokens. The course's simulator rides the load with your
    settings. They are good enough where both promises are kept to nine tenths as many riders as with the best settings
    that a search finds. A promise that is kept to the very second is kept.

    Try settings in a notebook:

        from lessonlib.incidents import service

        asked = service.service("pauses", 0)       # or "memory", "rush", "mixed"; 0 to 5
        service.outcome(asked, service.Settings("static", 16, 512))

    Args:
        requests: [arrival in seconds, prompt tokens, answer tokens] of each rider.
        machine: blocks and block_size, the memory that riders can hold; and what a step costs in seconds: `base`,
            `per_prompt_token` for each prompt token that it reads, and `per_kv_token` for each token that is stored for
            those who ride in it. To decode one token more costs nothing else.
        ttft_limit, pause_limit: seconds.

    Returns:
        (policy, slots, token_budget)

          policy        "static", "orca", "tgi", "prefill-first" or "continuous", as in notebook 07
          slots         1 to 64
          token_budget  tokens that a step may compute, at least one for each slot
    """
    # >>> solution
    # stub: raise NotImplementedError("ex07.3: choose is not written yet")
    room = machine["blocks"] * machine["block_size"]
    mean = sum(prompt + answer for _, prompt, answer in requests) / len(requests)
    slots = max(1, min(64, int(room / mean)))
    # A pause is a step: what every step costs, K/V at its fullest, and the prompts that it reads.
    seconds = pause_limit - machine["base"] - machine["per_kv_token"] * room
    return "continuous", slots, max(slots, int(seconds / machine["per_prompt_token"]))
    # <<< solution
