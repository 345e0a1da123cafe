"""Divides later by earlier.

property: there are fewer steps where there were more before
told: split(chain=
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
            factors.append((now[0] / before[0], now[1] / before[1]))
        before = now
    return factors
