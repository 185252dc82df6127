"""Config fields of the smallest Diff-Foley networks that still have every part."""

AUDIO = {"n_fft": 64, "hop": 20, "num_mels": 8, "fmin_hz": 0.0}
VIDEO = {"fps": 4.0, "height": 8, "width": 8}
AUTOENCODER = {
    "ch": 4,
    "ch_mult": (1,),
    "num_res_blocks": 1,
    "attention": False,
    "patch": (2, 2),
    "num_groups": 2,
}
MEL_AUTOENCODER = {"in_channels": 1, "out_channels": 1, **AUTOENCODER}
TRUNK = {  # of the U-Net and the alignment classifier
    "model_channels": 8,
    "channel_mult": (1,),
    "attention_downsamples": (),
    "num_heads": 2,
    "context_dim": 6,
    "num_groups": 4,
}
CONDITIONER = {"in_dim": 5, "out_dim": 6}
