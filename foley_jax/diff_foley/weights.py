"""Official checkpoints of Diff-Foley and of what it starts from: names only.

Every kind says how the dotted PyTorch keys become our paths; see `layers/torch_checkpoint.py`
for the meaning of the fields and `foley_jax/convert.py` for the engine.
"""

import functools

from foley_jax.diff_foley import audio_encoder, cavp, video_encoder
from foley_jax.layers import configured, torch_checkpoint

Checkpoint = torch_checkpoint.Checkpoint
_CAVP = cavp.default_config()

KINDS: dict[str, Checkpoint] = {
    # cavp_epoch66.ckpt, or the "state_dict" of the official training code: our names are theirs
    "diff_foley/cavp": Checkpoint(build=cavp.from_config, model=_CAVP, stage="cavp"),
    # Cnn14_mAP=0.431.pth and relatives: the convolutions and fc1. PANNs' bn0 has 64 mels and
    # fc_audioset has 527 classes, so `bn` and `final_project` stay at their initialisation.
    "panns/cnn14": Checkpoint(
        build=functools.partial(configured.build, audio_encoder.Cnn14),
        model={**_CAVP["audio"], "embed_dim": _CAVP["embed_dim"]},
        ignore=(
            r"bn0\..*",
            r"fc_audioset\..*",
            r"spectrogram_extractor\..*",
            r"logmel_extractor\..*",
        ),
        init=(r"bn/.*", r"final_project/.*"),
        containers=("model", "state_dict"),
    ),
    # mmaction2 slowonly_r50_256p_4x16x1_256e_kinetics400_rgb: the whole backbone, not the head.
    "mmaction/slowonly_r50": Checkpoint(
        build=functools.partial(configured.build, video_encoder.SlowOnly),
        model=_CAVP["video"],
        renames=((r"^backbone\.", ""),),
        ignore=(r"cls_head\..*", r"data_preprocessor\..*"),
    ),
}
