"""What single requests ask for beside the plain loop: changed logits, texts that end an answer, scores of a prompt."""
