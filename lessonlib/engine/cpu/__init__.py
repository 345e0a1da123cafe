"""The engine's operators for a CPU; `native` is the door, and the others are what it is quick by."""
