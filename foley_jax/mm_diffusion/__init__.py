"""MM-Diffusion: audio and video made together by two U-Nets that watch each other."""
