"""The microbenchmarks: ``python -m benchmarks`` measures Torchy and its peers in the same run."""
