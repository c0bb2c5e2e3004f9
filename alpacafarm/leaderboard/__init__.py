"""Win rates from judged pairs, models side by side: `python -m alpacafarm.leaderboard FILE...`."""
