"""Priors that are known to load: what they are, under which licence, and where to get them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from deqir.priors.hub import CHECKPOINT_SUFFIXES, cached_models, is_cached
from deqir.priors.loading import BUILTIN_NAME

HERE, ELSEWHERE = "here", "-"


@dataclass(frozen=True)
class KnownPrior:
    """One prior: ``source`` is what ``load_prior`` takes, or the name of a file to download from ``origin``.

    ``parameters``: how many, None where they were not counted; ``image_size``: pixels a side of its training;
    ``licence``: as its page states it, else that of the code published with it; ``bytes_each``: of a parameter.
    """

    source: str
    image_size: int | None
    parameters: int | None
    licence: str
    origin: str
    bytes_each: int = 4

    @property
    def file_size(self) -> int | None:
        """Bytes of its weights."""
        return None if self.parameters is None else self.bytes_each * self.parameters


GUIDED, IMPROVED = "github.com/openai/guided-diffusion", "github.com/openai/improved-diffusion"
HUB = "huggingface.co"
DDPM_256, DDPM_32, DDPM_64 = 113_673_219, 35_746_307, 78_700_803

KNOWN = (
    KnownPrior("google/ddpm-cifar10-32", 32, DDPM_32, "Apache-2.0", HUB),
    KnownPrior("google/ddpm-celebahq-256", 256, DDPM_256, "Apache-2.0", HUB),
    KnownPrior("google/ddpm-ema-celebahq-256", 256, DDPM_256, "Apache-2.0", HUB),
    KnownPrior("google/ddpm-church-256", 256, DDPM_256, "Apache-2.0", HUB),
    KnownPrior("google/ddpm-ema-church-256", 256, DDPM_256, "Apache-2.0", HUB),
    KnownPrior("google/ddpm-ema-bedroom-256", 256, DDPM_256, "Apache-2.0", HUB),
    KnownPrior("google/ddpm-cat-256", 256, DDPM_256, "Apache-2.0", HUB),
    KnownPrior("google/ddpm-ema-cat-256", 256, DDPM_256, "Apache-2.0", HUB),
    KnownPrior("google/ncsnpp-celebahq-256", 256, None, "Apache-2.0", HUB),
    KnownPrior("google/ncsnpp-ffhq-256", 256, None, "Apache-2.0", HUB),
    KnownPrior("google/ncsnpp-ffhq-1024", 1024, None, "Apache-2.0", HUB),
    KnownPrior(
        "deepinv/diffunet/diffusion_ffhq_10m.pt", 256, 93_563_910, "see page", f"{HUB}, a copy of ILVR's ffhq_10m"
    ),
    KnownPrior("deepinv/diffunet/diffusion_openai.pt", 256, 552_814_086, "see page", f"{HUB}, a copy of {GUIDED}"),
    KnownPrior(
        "gwang-kim/DiffusionCLIP-CelebA_HQ/celeba_hq.ckpt",
        256,
        DDPM_256,
        "see page",
        f"{HUB}, a copy; SDEdit's own link is dead",
    ),
    KnownPrior("64x64_diffusion.pt", 64, 295_904_454, "MIT", f"{GUIDED}, 1000 classes"),
    KnownPrior("128x128_diffusion.pt", 128, 421_529_606, "MIT", f"{GUIDED}, 1000 classes"),
    KnownPrior("256x256_diffusion.pt", 256, 553_838_086, "MIT", f"{GUIDED}, 1000 classes"),
    KnownPrior("256x256_diffusion_uncond.pt", 256, 552_814_086, "MIT", GUIDED),
    KnownPrior("512x512_diffusion.pt", 512, 558_997_638, "MIT", f"{GUIDED}, 1000 classes"),
    KnownPrior("lsun_bedroom.pt, lsun_cat.pt, lsun_horse.pt", 256, 552_814_086, "MIT", GUIDED),
    KnownPrior("imagenet64_uncond_100M_1500K.pt", 64, 121_063_942, "MIT", IMPROVED),
    KnownPrior("cifar10_uncond_50M_500K.pt", 32, 52_546_438, "MIT", IMPROVED),
    KnownPrior("imagenet64_cond_270M_250K.pt", 64, 273_049_350, "MIT", f"{IMPROVED}, 1000 classes"),
    KnownPrior("lsun_uncond_100M_1200K_bs128.pt", 256, 113_676_678, "MIT", IMPROVED),
    KnownPrior("ffhq_p2.pt and others", 256, 93_563_910, "MIT", "github.com/jychoi118/P2-weighting"),
    KnownPrior("ema_diffusion_cifar10_model/*.ckpt", 32, DDPM_32, "MIT", "github.com/pesser/pytorch_diffusion"),
    KnownPrior("ema_diffusion_lsun_*_model/*.ckpt", 256, DDPM_256, "MIT", "github.com/pesser/pytorch_diffusion"),
    KnownPrior("DDIM's CelebA checkpoint", 64, DDPM_64, "MIT", "github.com/ermongroup/ddim"),
)
"""Names and licences from the pages named, sizes counted on networks of these shapes; no link was followed."""


def listed_priors() -> Iterator[tuple[KnownPrior, str]]:
    """Every prior with where it is: the built-in one, those in the hub client's cache, then the known ones."""
    yield KnownPrior(BUILTIN_NAME, 64, 6_458_659, "MIT", "this package", 2), HERE
    cached = {hub_id: str(folder) for hub_id, folder in cached_models()}
    for hub_id, folder in cached.items():
        if hub_id not in {known.source for known in KNOWN}:
            yield KnownPrior(hub_id, None, None, "see page", folder), HERE
    for known in KNOWN:
        on_hub = known.origin.startswith(HUB)
        yield known, HERE if known.source in cached or (on_hub and _file_cached(known.source)) else ELSEWHERE


def _file_cached(source: str) -> bool:
    return source.endswith(CHECKPOINT_SUFFIXES) and is_cached(source)
