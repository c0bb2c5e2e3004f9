"""What stages take before they run: memory on each device, hours. Without torch."""
