"""Compares whole runs, and so counts the steps twice.

property: steps are quicker where each takes less time
told: split(chain=
"""


def split(chain):
    factors, before = [], None
    for contender in chain:
        if not contender["seconds"]:
            continue
        runs = sorted(contender["seconds"])
        seconds = (runs[(len(runs) - 1) // 2] + runs[len(runs) // 2]) / 2
        now = contender["steps"], seconds
        if before:
            factors.append((before[0] / now[0], before[1] / now[1]))
        before = now
    return factors
