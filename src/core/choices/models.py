"""The networks of the suite, a row for each type. This module does not import torch.

To add a network, write its class in `src.models` and its row here.
"""

from typing import Any, NamedTuple

Arguments = dict[str, Any]


class ModelRow(NamedTuple):
    """A network by name: its class, called with `arguments` and some options."""

    build: str  # "module:class"
    arguments: Arguments
    # The arguments of `build_model` that are passed on to the class, beside `n_classes`
    options: tuple[str, ...] = ("n_channels",)


RESNET = "src.models.resnet:ResNet"
PREACT_RESNET = "src.models.preact_resnet:PreActResNet"
SMALL_CNN = "src.models.small_cnn:SmallCNN"
VIT = "src.models.vit:VisionTransformer"
REPRESENTATION_RESNET = "src.models.representation_classifiers:RepresentationResNet"
REPRESENTATION_VIT = "src.models.representation_classifiers:RepresentationTransformer"

# Blocks per stage: He et al. 2016 (arXiv 1512.03385), table 1
RESNETS: dict[str, Arguments] = {
    "resnet18": {"block": "BasicBlock", "depths": (2, 2, 2, 2)},
    "resnet34": {"block": "BasicBlock", "depths": (3, 4, 6, 3)},
    "resnet50": {"block": "Bottleneck", "depths": (3, 4, 6, 3)},
    "resnet101": {"block": "Bottleneck", "depths": (3, 4, 23, 3)},
    "resnet152": {"block": "Bottleneck", "depths": (3, 8, 36, 3)},
}
RESNET_VARIANTS: dict[str, Arguments] = {
    "resnext50_32x4d": RESNETS["resnet50"] | {"groups": 32, "base_width": 4},
    "resnext101_32x8d": RESNETS["resnet101"] | {"groups": 32, "base_width": 8},
    "wide_resnet50_2": RESNETS["resnet50"] | {"base_width": 128},
    "wide_resnet101_2": RESNETS["resnet101"] | {"base_width": 128},
    "resnet18_samewidth": RESNETS["resnet18"] | {"same_width": True},
    "resnet18_samesize": RESNETS["resnet18"] | {"same_size": True},
    "resnet18_samewidth_samesize": RESNETS["resnet18"] | {"same_width": True, "same_size": True},
}

# A wide ResNet of depth n has (n - 4) / 6 blocks a stage
STAGES: Arguments = {"widths": (64, 128, 256, 512), "stem_width": 64}
WIDE_STAGES: Arguments = {"family": "wide", "widths": (160, 320, 640), "stem_width": 16}
PREACTS: dict[str, Arguments] = {
    "preact_resnet18": {"family": "preact", "depths": (2, 2, 2, 2), **STAGES},
    "preact_resnet34": {"family": "preact", "depths": (3, 4, 6, 3), **STAGES},
    "wide_resnet_28_10": {"depths": (4, 4, 4), **WIDE_STAGES},
    "wide_resnet_34_10": {"depths": (5, 5, 5), **WIDE_STAGES},
    "liu2020_wrn": {
        "family": "liu2020",
        "depths": (6, 6, 6),
        "widths": (32, 64, 128),
        "stem_width": 16,
    },
}

# Dosovitskiy et al. 2021 (arXiv 2010.11929), table 1; Touvron et al. 2021 for tiny and small; Zhai
# et al. 2022 for giant and gigantic. Every MLP has four times the width, as in the public code.
VITS: dict[str, Arguments] = {
    "tiny": {"width": 192, "depth": 12, "heads": 3},
    "small": {"width": 384, "depth": 12, "heads": 6},
    "medium": {"width": 512, "depth": 12, "heads": 8},
    "base": {"width": 768, "depth": 12, "heads": 12},
    "large": {"width": 1024, "depth": 24, "heads": 16},
    "huge": {"width": 1280, "depth": 32, "heads": 16},
    "giant": {"width": 1408, "depth": 40, "heads": 16},
    "gigantic": {"width": 1664, "depth": 48, "heads": 16},
}
VIT_INPUTS: dict[str, Arguments] = {
    "patch4_32": {"patch": 4, "image_size": 32},
    "patch16_224": {"patch": 16, "image_size": 224},
}

MODELS = {name: ModelRow(RESNET, row) for name, row in (RESNETS | RESNET_VARIANTS).items()}
MODELS |= {name: ModelRow(PREACT_RESNET, row) for name, row in PREACTS.items()}
MODELS |= {
    f"tv_{name}": ModelRow(RESNET, row | {"imagenet_stem": True}) for name, row in RESNETS.items()
}
MODELS["small_cnn"] = ModelRow(SMALL_CNN, {}, ("n_channels", "image_shape"))
for _inputs, _patches in VIT_INPUTS.items():
    for _size, _row in VITS.items():
        _options = ("n_channels", "image_shape")
        MODELS[f"vit_{_size}_{_inputs}"] = ModelRow(VIT, _row | _patches, _options)

# Classifiers of representations: OOD detectors
for _name, _row in RESNETS.items():
    _options = ("representation_shape", "image_shape")
    MODELS[f"repr_cls_{_name}"] = ModelRow(REPRESENTATION_RESNET, _row, _options)
for _size, _row in VITS.items():
    MODELS[f"repr_cls_vit_{_size}"] = ModelRow(REPRESENTATION_VIT, _row, ("representation_shape",))

MODEL_NAMES = tuple(MODELS)
