"""Asking models behind OpenAI-compatible endpoints: everything paid for is kept, and no budget is passed."""
