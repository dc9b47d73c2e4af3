"""Generation: prompt plans, the sampler and the synthetic corpus."""
