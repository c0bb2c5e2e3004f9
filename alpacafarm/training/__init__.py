"""The two loops, over fixed data and over rollouts, with logging, learning rate, checkpoints and resume once each."""
