"""MMAudio: text and video to audio, by flow matching over latents of mels."""
