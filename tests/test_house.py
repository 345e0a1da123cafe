"""The house keeps its floors: nothing imports upward, and some rooms never meet."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

from lessonlib.contenders.registry import CONTENDERS

ROOT = Path(__file__).parents[1]

# From the ground up; a module may import its own floor's package and the floors below.
FLOORS = [
    {
        "lessonlib",
        "lessonlib.errors",
        "lessonlib.files",
        "lessonlib.claims",
        "lessonlib.counting",
        "lessonlib.regions",
        "lessonlib.layout",
        "lessonlib.tables",
    },
    {
        "lessonlib.workload",
        "lessonlib.utilization",
        "lessonlib.fetch",
        "lessonlib.start",
        "lessonlib.hosts",
        "kernels",
    },
    {"lessonlib.trace_schema", "lessonlib.metrics", "lessonlib.trace"},
    {"lessonlib.result", "lessonlib.split", "lessonlib.recorded"},
    {"lessonlib.scheduling"},
    {"lessonlib.simulation"},
    {"lessonlib.incidents"},
    {"lessonlib.checks", "lessonlib.engine", "lessonlib.viz"},
    {
        "lessonlib.contenders",
        "lessonlib.ladder",
        "lessonlib.ladder_without",
        "lessonlib.ladder_load",
        "lessonlib.overhearing",
        "lessonlib.policy_bench",
    },
    {
        "lessonlib.doctor",
        "lessonlib.notebooks",
        "lessonlib.grading",
        "lessonlib.nbval_kernel",
        "lessonlib.unrun",
    },
    {"lessonlib.cli", "lessonlib.site"},
]
NEVER = {
    "lessonlib.scheduling": ("numpy", "torch", "transformers", "lessonlib.workload"),
    "lessonlib.simulation": ("torch", "transformers"),
    "lessonlib.incidents": ("torch", "transformers"),
    "lessonlib.metrics": ("torch",),
    "lessonlib.trace": ("torch",),
    "lessonlib.workload": ("torch",),
    "lessonlib.utilization": ("numpy", "torch"),
    "kernels": ("lessonlib", "transformers"),
    "lessonlib.engine": ("lessonlib.simulation",),
    "lessonlib.viz": (
        "torch",
        "lessonlib.engine",
        "lessonlib.scheduling",
        "lessonlib.simulation",
        "lessonlib.workload",
    ),
    "lessonlib.checks": ("solutions", "lessonlib.engine"),
    "lessonlib.grading": ("solutions", "lessonlib.engine"),
}

# Not counted with the engine: explanations, measurements, batches to try kernels on.
BESIDE_THE_ENGINE = {"reference", "bench", "ladder", "watch", "machine", "tier", "cards", "batches"}
# The part of the scheduler that an engine cannot do without, as nano-vllm's 1,195 lines include theirs.
SCHEDULER_CORE = {"request", "block_pool", "kv_cache", "policy", "plan", "scheduler"}
# Part -> the most lines of code. benchmarks/NOTES.md says what they are for.
# Of the kernels' lines 134 draw tokens.
MOST_LINES = {"engine": 1_156, "kernels": 1_008, "scheduler core": 748}
# Wings, each with a count of its own: a CPU's operators; what a caller may hand in, checked, with all of vLLM's
# parameters and arguments; what single requests ask for beside the plain loop (penalties, stop strings, several
# answers, scores of a prompt); files, checked and read.
WINGS = {
    "lessonlib.engine.cpu": 398,
    "lessonlib.engine.frontend": 685,
    "lessonlib.engine.extras": 242,
    "lessonlib.engine.checkpoint": 223,
}

MOST_LINES_OF_A_FUNCTION = 60
LONG_KERNELS = {"kernels.attention._prefill_kernel", "kernels.attention._decode_kernel"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("lessonlib", "kernels")
    for path in (ROOT / package).rglob("*.py")
}


def room(module):
    """The longest listed name that holds the module."""
    listed = [name for floor in FLOORS for name in floor if module == name or module.startswith(name + ".")]
    return max(listed, key=len)


def floor(module):
    return next(height for height, floor in enumerate(FLOORS) if room(module) in floor)


def imports(module):
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in MODULES else node.module for name in names)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_nothing_imports_upward(module):
    for name in imports(module):
        if name in MODULES:
            assert floor(name) <= floor(module), f"{module} imports {name}"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_rooms_that_never_meet(module):
    for name in imports(module):
        for banned in NEVER.get(room(module), ()):
            assert f"{name}.".startswith(f"{banned}.") is False, f"{module} imports {name}"


def test_no_two_files_import_each_other():
    edges = {
        (module, name) for module in MODULES for name in imports(module) if name in MODULES and name != module
    }
    circles = {tuple(sorted(edge)) for edge in edges if edge[::-1] in edges}
    assert not circles


# What runs in the parent of the contenders' processes.
PARENT = {f"lessonlib.contenders.{name}" for name in ("compare", "session", "setup", "turns", "process")}


def test_a_contenders_process_imports_nothing_of_its_parent():
    seen, found = set(), {"lessonlib.contenders.child", *(each.module for each in CONTENDERS.values())}
    while found:
        seen |= found
        names = {
            name for module in found for name in imports(module) if name.startswith("lessonlib.contenders.")
        }
        found = names - seen
    assert not seen & PARENT


def test_kernels_stay_light():
    """`import transformers` imports any top-level package called kernels: ours must cost nothing."""
    assert not list(imports("kernels"))


def test_every_figure_has_the_course_look():
    """Figures come from the style module, which gives one font, one palette, a title and a source."""
    for module, path in MODULES.items():
        if not module.startswith("lessonlib.viz."):
            continue
        assert "matplotlib.pyplot" not in imports(module), module
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef):
                continue
            calls = {ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call)}
            if "style.picture" in calls:
                assert calls & {"style.finish", "finish"}, (
                    f"{module}.{node.name} leaves a figure without a title"
                )
                assert "Figure" not in calls, f"{module}.{node.name} makes a figure of its own"


NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def lines_of_code(source):
    """Lines that hold more than a comment or a docstring."""
    tokens = [
        token for token in tokenize.generate_tokens(io.StringIO(source).readline) if token.type not in NO_CODE
    ]
    code = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    expressions = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    docstrings = [
        node
        for node in expressions
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    ]
    return len(code - {line for node in docstrings for line in range(node.lineno, node.end_lineno + 1)})


def test_lines_of_code_are_counted_without_words():
    source = '"""Two\nlines."""\n\n# why\ndef f(\n    x,\n):\n    """Says."""\n    return x  # here\n'
    assert lines_of_code(source) == 4


def counted_lines():
    """Part of the engine -> its lines of code, without docstrings and comments."""
    lines = dict.fromkeys([*MOST_LINES, *WINGS], 0)
    for module, path in MODULES.items():
        wing = next((name for name in WINGS if module.startswith(name)), None)
        if wing:
            part = wing
        elif module.startswith("lessonlib.engine"):
            part = "engine"
        elif module.startswith("kernels") and path.stem not in BESIDE_THE_ENGINE:
            part = "kernels"
        elif module.startswith("lessonlib.scheduling.") and path.stem in SCHEDULER_CORE:
            part = "scheduler core"
        else:
            continue
        lines[part] += lines_of_code(path.read_text())
    return lines


def test_the_engine_grows_no_further():
    lines = counted_lines()
    for part, most in (MOST_LINES | WINGS).items():
        assert lines[part] <= most, (
            f"{part} has {lines[part]:,} lines of code, {most:,} are allowed; all: {lines}"
        )


def test_the_notes_say_how_many_lines_there_are():
    notes = (ROOT / "benchmarks" / "NOTES.md").read_text(encoding="utf-8")
    for most in (MOST_LINES | WINGS).values():
        assert f" | {most:,} |\n" in notes, (
            f"{most:,} lines are allowed, and benchmarks/NOTES.md says otherwise"
        )


def functions():
    """(module.name, lines) of every function of the tree, methods and nested ones included."""
    for folder in ("lessonlib", "kernels", "benchmarks", "solutions", "exercises", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{module}.{node.name}", node.end_lineno - node.lineno + 1


def test_no_function_is_over_60_lines():
    long = {name for name, lines in functions() if lines > MOST_LINES_OF_A_FUNCTION} - LONG_KERNELS
    assert not long, f"over {MOST_LINES_OF_A_FUNCTION} lines: split {', '.join(long)}"
