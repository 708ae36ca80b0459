"""The names of network types; their rows are in `src.models.zoo`."""

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
VARIANTS = (
    "resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
    "resnet18_samewidth", "resnet18_samesize", "resnet18_samewidth_samesize",
    "preact_resnet18", "preact_resnet34", "wide_resnet_28_10", "wide_resnet_34_10", "liu2020_wrn",
)  # fmt: skip
VITS = ("tiny", "small", "medium", "base", "large", "huge", "giant", "gigantic")
VIT_INPUTS = ("patch4_32", "patch16_224")

MODEL_NAMES = (
    *RESNETS,
    *VARIANTS,
    *(f"tv_{name}" for name in RESNETS),
    "small_cnn",
    *(f"vit_{size}_{suffix}" for suffix in VIT_INPUTS for size in VITS),
    *(f"repr_cls_{name}" for name in RESNETS),
    *(f"repr_cls_vit_{size}" for size in VITS),
)
