"""Takes the mean: one slow run weighs on all.

property: several runs are told by their median
told: split(chain=
"""


def split(chain):
    factors, before = [], None
    for contender in chain:
        if not contender["seconds"]:
            continue
        runs = sorted(contender["seconds"])
        seconds = sum(runs) / len(runs)
        now = contender["steps"], seconds / contender["steps"]
        if before:
            factors.append((before[0] / now[0], before[1] / now[1]))
        before = now
    return factors
