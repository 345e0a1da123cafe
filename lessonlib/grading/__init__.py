"""Grading a class: submissions in, a record for each student and the class's tables out.

`submissions` reads what was handed in, `job` checks one submission, `cluster` spreads the jobs over processes
or machines, `records` keeps what came of them, `tables` and `pages` say it, `run.grade` is the whole of it.
"""
