"""Fine-tuning of a captioner on published caption sets."""
