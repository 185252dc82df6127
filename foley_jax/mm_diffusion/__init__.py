"""MM-Diffusion: sound and picture made together by two U-Nets that watch each other."""
