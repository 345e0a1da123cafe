"""Triton kernels of the course, each with a plain PyTorch reference beside it.

Kept light on purpose: `import transformers` finds any top-level package called `kernels` and
imports it, so nothing here may import torch or triton. Import from the modules instead, e.g.
``from kernels.reference import paged_attention``.
"""
