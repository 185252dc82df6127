"""Peers: our networks in PyTorch; torch and diffusers are imported where one is made."""
