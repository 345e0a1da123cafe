"""The data plane: a checkpoint, a model, and the loop that rides them.

Import `LLM` and `SamplingParams` from here; they carry vLLM's names and shapes.
"""

from lessonlib.engine.llm import LLM
from lessonlib.engine.outputs import CompletionOutput, RequestOutput, SamplingParams

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams"]
