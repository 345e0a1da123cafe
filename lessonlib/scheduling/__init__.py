"""The control plane: who boards, who waits, who leaves. Integers and lists, never a tensor."""
