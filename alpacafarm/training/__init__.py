"""The two loops, over fixed data and over rollouts; logging, learning rate, checkpoints and resume once."""
