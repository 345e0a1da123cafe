"""Rounds to four digits.

property: numbers are neither rounded nor cut
told: rounded: leave the number as it is.
"""


def split(chain):
    factors, before = [], None
    for contender in chain:
        if not contender["seconds"]:
            continue
        runs = sorted(contender["seconds"])
        seconds = (runs[(len(runs) - 1) // 2] + runs[len(runs) // 2]) / 2
        now = contender["steps"], seconds / contender["steps"]
        if before:
            factors.append((round(before[0] / now[0], 4), round(before[1] / now[1], 4)))
        before = now
    return factors
