"""`lesson mutant`."""

from __future__ import annotations

import click

from lessonlib.cli.command import DONE, Command


@click.command(
    cls=Command,
    short_help="a wrong answer that the checks must reject, whole",
    example="lesson mutant ex03.3 double_free",
)
@click.argument("task", required=False, help="Such as ex03.3 (default: say how many each task has).")
@click.argument("name", required=False, help="Such as double_free (default: list the task's).")
def mutant(task: str | None, name: str | None) -> int:
    """Print a wrong answer as a student would have written it, with the sentence that says what is wrong."""
    from lessonlib.checks import mutants

    folder = mutants.find_mutants()
    tasks = mutants.read_all(folder)
    if task is None:
        for each, there in tasks.items():
            print(f"{each}  {len(there)}")
        return DONE
    of_task = mutants.choose(tasks, task, "mutants of")
    if name is None:
        width = max(map(len, of_task))
        for each in of_task.values():
            print(f"{each.name:{width}}  {each.mistake}")
        return DONE
    chosen = mutants.choose(of_task, name, f"mutant of {task} called")
    print(f"# {chosen.mistake}\n# Rejected by: {chosen.property}\n\n{chosen.answer(folder.parent)}")
    return DONE
