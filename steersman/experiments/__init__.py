"""Many runs: comparisons, benchmarks and the main job."""
