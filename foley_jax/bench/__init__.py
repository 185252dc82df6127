"""Speed on the device that is there, beside what a user of PyTorch would run instead."""
