"""What a caller may hand in, checked before anything is computed: parameters, prompts, the constructor's options."""
