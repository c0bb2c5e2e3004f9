"""Pairs that people label on a local page: `python -m alpacafarm.label FOLDER`.

`folder` is what is labelled, `labels` the transactions on what was said, `verdicts` what comes of it, `app`
and `guard` the page, `page/` its files. Only `app` and `__main__` know the web library.
"""
