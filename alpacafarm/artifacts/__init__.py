"""What stages leave behind: one folder for each key."""
