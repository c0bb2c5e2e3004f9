"""A small world of English requests whose true preference is known: tasks, answers, gold and annotators."""
