"""Runs a student's file in a process of its own, shut in as well as the machine can.

`process` starts that process, calls the student's functions and reads what comes back; `child` is the program that runs
in it; `confine` shuts it in; `cleaning` makes text that a student wrote fit to show.
"""
