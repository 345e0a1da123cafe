"""The data plane: a checkpoint, a model, and the loop that runs them.

Import `LLM` and `SamplingParams` from here; they carry vLLM's names and shapes.
"""

from lessonlib.engine.frontend.params import SamplingParams
from lessonlib.engine.frontend.prompts import TextPrompt, TokensPrompt
from lessonlib.engine.llm import LLM
from lessonlib.engine.outputs import CompletionOutput, RequestOutput

__all__ = ["LLM", "CompletionOutput", "RequestOutput", "SamplingParams", "TextPrompt", "TokensPrompt"]
