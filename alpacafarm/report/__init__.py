"""What a run shows at its end: `result.json`, the tables of the console, the HTML report."""
