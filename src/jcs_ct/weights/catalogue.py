"""The weights this package knows of: an explicit table of where they are, how to recognise them, and under which terms.

Nothing of them is shipped. No torch and no network here.
"""

from __future__ import annotations

from dataclasses import dataclass

from jcs_ct.core.errors import UsageError

CITE_JCS = (
    "Wu et al.: JCS: An Explainable COVID-19 Diagnosis System by Joint Classification and Segmentation. "
    "IEEE Transactions on Image Processing 30, 3113–3126, 2021"
)
CITE_VGG = (
    "Simonyan & Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. "
    "ICLR 2015, arXiv:1409.1556"
)
CITE_RES2NET = (
    "Gao et al.: Res2Net: A New Multi-Scale Backbone Architecture. IEEE TPAMI 43(2), 652–662, 2021, arXiv:1904.01169"
)

UNKNOWN_LICENCE = "unknown"
_NOT_STATED = "none stated by its authors: ask them before any use beyond looking at it"
_RELEASE = "the Google Drive linked in the README of https://github.com/yuhuan-wu/JCS"
_HUB = "https://huggingface.co/timm"


@dataclass(frozen=True)
class KnownFile:
    """One file that holds the weights of an entry.

    Attributes:
        filename: What its publishers call it.
        sha256: Its SHA-256, or the published beginning of it; empty where none was published.
        url: Where it can be downloaded without a click, or None.
    """

    filename: str
    sha256: str = ""
    url: str | None = None


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue.

    Attributes:
        name: What users call it; the name it is imported under.
        architecture: Key of `jcs_ct.models.MODELS`.
        title: What it is.
        files: Files that hold it, the one to download first.
        where: Where to find it by hand.
        size: Bytes of the first file, rounded, or None.
        licence: As stated by its publishers.
        citation: What to cite.
    """

    name: str
    architecture: str
    title: str
    files: tuple[KnownFile, ...] = ()
    where: str = _RELEASE
    size: int | None = None
    licence: str = _NOT_STATED
    citation: str = CITE_JCS

    @property
    def checksums(self) -> tuple[str, ...]:
        """The known SHA-256 of its files, or their published beginnings."""
        return tuple(file.sha256 for file in self.files if file.sha256)

    @property
    def url(self) -> str | None:
        """The address `jcs models download` uses; None when the file has to be fetched by hand."""
        return self.files[0].url if self.files else None

    def by_hand(self) -> str:
        """Return what to fetch, and the command that imports it."""
        name = self.files[0].filename if self.files else "the file"
        return f"fetch {name} from {self.where}, then: jcs models download {self.name} --from FILE"


CATALOGUE: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("jcs-single", "jcs-single", "official VGG-16 segmenter (single task)"),
        Entry("jcs-joint", "jcs-joint", "official segmenter fed with the classifier's features"),
        Entry(
            "jcs-classifier",
            "jcs-classifier",
            "official classifier, trained with image labels only",
            (KnownFile("res2net_cls.pth"),),
        ),
        Entry(
            "jcs-classifier-segloss",
            "jcs-classifier",
            "official classifier, trained with pixel-level supervision",
            (KnownFile("res2net_segloss.pth"),),
        ),
        Entry(
            "vgg16-bn-imagenet",
            "vgg16-bn",
            "VGG-16-BN, ImageNet-1k (torchvision's weights, as timm keeps them)",
            (
                KnownFile(
                    "vgg16_bn.tv_in1k.safetensors",
                    "88bbedbc8e780413736db38ac4efd41b06fc0e93fd5b8879b584bba63a950129",
                    f"{_HUB}/vgg16_bn.tv_in1k/resolve/e00c01e7cee168262dcba6428dc4a8f41e27e965/model.safetensors",
                ),
                KnownFile("vgg16_bn-6c64b313.pth", "6c64b313"),  # torchvision's own file of the same weights
            ),
            where=f"{_HUB}/vgg16_bn.tv_in1k (model.safetensors)",
            size=554_000_000,
            licence="BSD-3-Clause",
            citation=CITE_VGG,
        ),
        Entry(
            "res2net101-v1b-imagenet",
            "res2net101-v1b",
            "Res2Net-101 v1b 26w×4s, ImageNet-1k (as timm keeps it: res2net101d)",
            (
                KnownFile(
                    "res2net101d.in1k.safetensors",
                    "7e00980a876398f235a9a1e294a48be85e88bdd63db5f6834fd686db50ae02c4",
                    f"{_HUB}/res2net101d.in1k/resolve/2f63b5624843229486071f878c0cdbb0ffd30a5f/model.safetensors",
                ),
                KnownFile("res2net101_v1b_26w_4s-0812c246.pth", "0812c246"),  # the file of Res2Net's authors
            ),
            where=f"{_HUB}/res2net101d.in1k (model.safetensors)",
            size=181_000_000,
            licence="unknown: its model card says so, and its authors' repository names none for the weights",
            citation=CITE_RES2NET,
        ),
    )
}
CITATIONS = {entry.architecture: entry.citation for entry in CATALOGUE.values()}


def find_entry(name: str) -> Entry:
    """Return an entry of the catalogue. Raises UsageError with the known names for an unknown one."""
    if name not in CATALOGUE:
        raise UsageError(f"the catalogue has no weights called {name!r}", hint=f"it has {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def entry_of_file(filename: str, sha256: str) -> Entry | None:
    """Return the entry that a file belongs to: by its checksum, or by its name where no checksum was published."""
    for entry in CATALOGUE.values():
        for known in entry.files:
            if sha256.startswith(known.sha256) if known.sha256 else known.filename == filename:
                return entry
    return None
