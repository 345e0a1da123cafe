"""Sets the first one against itself.

property: whoever has no run is left out
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
        before = before or now
        if before:
            factors.append((before[0] / now[0], before[1] / now[1]))
        before = now
    return factors
