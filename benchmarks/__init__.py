"""What is measured, and where the results are kept."""
