"""Engines side by side: each runs one workload in a process of its own and gives one `Result`.

`compare` starts the processes and takes turns with them; `child` is what runs in them. Modules that a child
imports use the standard library, NumPy and their own engine, since vLLM lives in an environment of its own.
docs/fairness.md says what is kept equal and how.
"""
