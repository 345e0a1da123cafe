"""Engines side by side: each runs the same rows of work in a process of its own.

`registry` has an entry for each contender; a new one is a new entry.

In the parent, `compare` goes through `setup` (machine, model, rows), `agreement`, `turns` (the timed runs) and
`tracing`, each of which works on a `session` of `process`es. In the child, `child` loads the entry's module: `hf`,
`hf_cb`, `course` or `vllm_engine`, which import only the standard library, NumPy and their own engine, since vLLM has
an environment of its own. `job` is what both sides share. docs/fairness.md says what is kept equal and how.
"""
