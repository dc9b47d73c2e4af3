"""What stages start from: data folders, base models, prompts."""
