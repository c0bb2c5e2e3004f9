"""What a stage tells while it runs: metrics, times, progress."""
