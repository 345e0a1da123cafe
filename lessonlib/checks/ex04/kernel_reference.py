"""The course's decode kernel in the place of a student's: what the speed of `ex04_kernel.py` is compared with.

The checker runs this file as it runs a student's, in a process of its own.
"""

from functools import cache

import torch

from kernels.attention import make_workspace, paged_attention


def decode_attention(
    out: torch.Tensor,
    query: torch.Tensor,
    key_cache: torch.Tensor,
    value_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    scale: float,
) -> None:
    """As the exercise has it; see `solutions/ex04_kernel.py`."""
    num_seqs, num_heads, head_dim = query.shape
    starts = _starts(num_seqs, query.device)
    workspace = _workspace(num_heads, key_cache.shape[2], head_dim, query.dtype, query.device)
    paged_attention(
        query,
        key_cache,
        value_cache,
        block_table,
        seq_lens,
        starts,
        scale=scale,
        num_decodes=num_seqs,
        workspace=workspace,
        out=out,
    )


# Made once, as an engine does, so that neither is in the time.


@cache
def _starts(num_seqs: int, device: torch.device) -> torch.Tensor:
    return torch.arange(num_seqs + 1, dtype=torch.int32, device=device)


_workspace = cache(make_workspace)
