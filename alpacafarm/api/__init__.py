"""Models behind an OpenAI-compatible API: each answer is paid for once, kept, and within the budget."""
