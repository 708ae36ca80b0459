"""The table of all networks. It is read without importing torch, so that `--help` answers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from src.doors import resolve
from src.errors import Misfit, UserError, unknown_name
from src.models.user_file import is_user_network, user_network

if TYPE_CHECKING:
    from src.models.network import Network


class Entry(NamedTuple):
    """How to build a network: a function, called with `arguments` and some of the options."""

    builder: str  # "module.function" of this package
    arguments: dict[str, Any]
    options: tuple[str, ...] = ("n_channels",)  # those of `build_model` that it takes beside `n_classes`


# Blocks per stage, He et al. 2016 (arXiv 1512.03385), table 1.
RESNETS = {
    "resnet18": {"block": "BasicBlock", "depths": (2, 2, 2, 2)},
    "resnet34": {"block": "BasicBlock", "depths": (3, 4, 6, 3)},
    "resnet50": {"block": "Bottleneck", "depths": (3, 4, 6, 3)},
    "resnet101": {"block": "Bottleneck", "depths": (3, 4, 23, 3)},
    "resnet152": {"block": "Bottleneck", "depths": (3, 8, 36, 3)},
}
RESNET_VARIANTS = {
    "resnext50_32x4d": RESNETS["resnet50"] | {"groups": 32, "base_width": 4},
    "resnext101_32x8d": RESNETS["resnet101"] | {"groups": 32, "base_width": 8},
    "wide_resnet50_2": RESNETS["resnet50"] | {"base_width": 128},
    "wide_resnet101_2": RESNETS["resnet101"] | {"base_width": 128},
    "resnet18_samewidth": RESNETS["resnet18"] | {"same_width": True},
    "resnet18_samesize": RESNETS["resnet18"] | {"same_size": True},
    "resnet18_samewidth_samesize": RESNETS["resnet18"] | {"same_width": True, "same_size": True},
}

# A wide ResNet of depth n has (n - 4) / 6 blocks a stage.
STAGES = {"widths": (64, 128, 256, 512), "stem_width": 64}
WIDE_STAGES = {"family": "wide", "widths": (160, 320, 640), "stem_width": 16}
PREACTS = {
    "preact_resnet18": {"family": "preact", "depths": (2, 2, 2, 2), **STAGES},
    "preact_resnet34": {"family": "preact", "depths": (3, 4, 6, 3), **STAGES},
    "wide_resnet_28_10": {"depths": (4, 4, 4), **WIDE_STAGES},
    "wide_resnet_34_10": {"depths": (5, 5, 5), **WIDE_STAGES},
    "liu2020_wrn": {"family": "liu2020", "depths": (6, 6, 6), "widths": (32, 64, 128), "stem_width": 16},
}

# Dosovitskiy et al. 2021 (arXiv 2010.11929), table 1; Touvron et al. 2021 for tiny and small; Zhai et al. 2022 for
# giant and gigantic. All of them have an MLP of four times the width here, as in the public code.
VITS = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "medium": {"width": 512, "depth": 12, "heads": 8},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
    "huge": {"width": 1280, "depth": 32, "heads": 16},
    "giant": {"width": 1408, "depth": 40, "heads": 16},
    "gigantic": {"width": 1664, "depth": 48, "heads": 16},
}
VIT_INPUTS = {"patch4_32": {"patch": 4, "image_size": 32}, "patch16_224": {"patch": 16, "image_size": 224}}

MODELS = {
    **{name: Entry("resnet.ResNet", arguments) for name, arguments in (RESNETS | RESNET_VARIANTS).items()},
    **{name: Entry("preact_resnet.PreActResNet", arguments) for name, arguments in PREACTS.items()},
    **{
        f"tv_{name}": Entry("resnet.ResNet", arguments | {"imagenet_stem": True}) for name, arguments in RESNETS.items()
    },
    "small_cnn": Entry("small_cnn.SmallCNN", {}),
    **{
        f"vit_{size}_{suffix}": Entry("vit.VisionTransformer", arguments | patches, ("n_channels", "image_shape"))
        for suffix, patches in VIT_INPUTS.items()
        for size, arguments in VITS.items()
    },
    **{
        f"repr_cls_{name}": Entry(
            "representation_classifiers.RepresentationResNet", arguments, ("representation_shape", "image_shape")
        )
        for name, arguments in RESNETS.items()
    },
    **{
        f"repr_cls_vit_{size}": Entry(
            "representation_classifiers.RepresentationTransformer", arguments, ("representation_shape",)
        )
        for size, arguments in VITS.items()
    },
}

MODEL_NAMES = tuple(MODELS)


def build_model(
    name: str,
    *,
    n_classes: int = 10,
    n_channels: int = 3,
    representation_shape: tuple[int, ...] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    encoder: bool = False,
) -> Network:
    """Build the network `name` with fresh weights, drawn from torch's global generator.

    Args:
        name: one of `MODEL_NAMES`; `tv_NAME` for any classification network of torchvision; or FILE.py:FUNCTION, a
            function that takes those of `n_classes`, `n_channels` and `image_shape` that it wants by name and returns
            an `nn.Module`. Its file is run.
        n_classes: number of logits.
        n_channels: channels of the images. `repr_cls_*` take the channels of the representation instead.
        representation_shape: of one sample, needed by `repr_cls_*` alone: (C, H, W) for `repr_cls_resnet*`,
            (tokens, width) for `repr_cls_vit_*`.
        image_shape: (C, H, W) of the data. `vit_*` derive their number of tokens from it (without it from their
            name), `repr_cls_resnet*` resize representations to its H×W (without it 32×32); the others take images
            of any size.
        encoder: take a network that gives features instead of logits as well.
    Raises:
        UserError: no such network (the close names are listed), or it does not suit the images or classes.
    """
    from src.models.network import Network

    options = {"n_channels": n_channels, "image_shape": image_shape, "representation_shape": representation_shape}
    images = image_shape
    if name in MODELS:
        builder, arguments, names = MODELS[name]
        given = {key: options[key] for key in names}
        images = given.get("representation_shape", image_shape)
        module = resolve(__package__, builder)(**arguments, **given, n_classes=n_classes)
    elif is_user_network(name):
        module = user_network(name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes)
    elif name.startswith("tv_"):
        from src.models.torchvision_networks import torchvision_network

        module = torchvision_network(name, n_channels=n_channels, image_shape=image_shape, n_classes=n_classes)
    elif name.endswith(".py"):
        raise UserError(f"model {name!r} is a file; name the function in it that makes the network: {name}:FUNCTION")
    else:
        raise unknown_name("model", name, (*MODEL_NAMES, "tv_NAME of torchvision", "FILE.py:FUNCTION"))
    network = Network(module, image_shape=images, n_classes=n_classes)
    if image_shape is not None and (name not in MODELS or name == "small_cnn"):  # which small images are too small for
        _check(network, name, encoder=encoder)
    return network


def _check(network: Network, name: str, *, encoder: bool) -> None:
    """Look at a network: it takes the images, and gives logits or may be an encoder."""
    try:
        shape, is_encoder = network.eval().output_shape, network.is_encoder
    except UserError:
        raise
    except Exception as error:  # whatever its forward raises
        reason, images = str(error)[:300], "×".join(map(str, network.image_shape))
        raise Misfit(f"{name} cannot take images of {images} ({reason}); choose another one or a dataset") from error
    network.train()
    if is_encoder and not encoder:
        raise UserError(
            f"{name} gives {'×'.join(map(str, shape))} for an image, not the logits of {network.n_classes} classes; "
            "let it take n_classes, or give this encoder a head: exec_probe.py CHECKPOINT TYPE -l output -d DATASET "
            "--with-head DIR, and name DIR/model_EPOCH.pt as its checkpoint"
        )
