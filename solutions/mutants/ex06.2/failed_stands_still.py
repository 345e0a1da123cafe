"""Whoever could not run gets factors of one.

property: whoever has no run is left out
told: split(chain=
"""


def split(chain):
    factors, before = [], None
    for contender in chain:
        if not contender["seconds"]:
            factors += [(1.0, 1.0)] if before else []
            continue
        runs = sorted(contender["seconds"])
        seconds = (runs[(len(runs) - 1) // 2] + runs[len(runs) // 2]) / 2
        now = contender["steps"], seconds / contender["steps"]
        if before:
            factors.append((before[0] / now[0], before[1] / now[1]))
        before = now
    return factors
