"""Schedulers that are broken on purpose: planted faults, the laws that each of them breaks, and tickets.

`record` makes a Trace a plain record, `laws` says what holds in every step of a sound one, `load` and `run` draw
requests and have them served. `memory`, `queue` and `work` hold the faults; each breaks one law, and those that break
the same law are siblings. `pool` compares a broken run with a sound one of the same load, so that the first step in
which the fault shows is found and not written down. `tickets` draws three incidents for a name:

    from lessonlib.incidents import tickets
    from lessonlib.viz import Elevator

    mine = tickets("ada")
    print(mine[0])
    Elevator(mine[0].trace)
"""

from lessonlib.incidents.pool import FAULTS, Incident, incident, siblings, sound_rides
from lessonlib.incidents.tickets import Ticket, causes, tickets

__all__ = ["FAULTS", "Incident", "Ticket", "causes", "incident", "siblings", "sound_rides", "tickets"]
