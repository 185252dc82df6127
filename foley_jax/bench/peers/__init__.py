"""The same networks in PyTorch; torch and diffusers are imported where a peer is made."""
