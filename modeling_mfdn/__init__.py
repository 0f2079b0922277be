"""MFDN: identifies the character in an anime illustration and predicts its tags.

Importing this package registers its classes with transformers, so that `AutoModel` and the others load a saved folder
without `trust_remote_code`; and what is saved carries the code along, for processes without this package.
"""

import sys
from pathlib import Path

__all__ = [
    "Label2LabelConfig",
    "Label2LabelModel",
    "MFDNConfig",
    "MFDNImageProcessor",
    "MFDNModel",
    "MFDNOutput",
    "MFDNPipeline",
    "MFDNProcessor",
    "MultiLabelConfig",
    "MultiLabelModel",
]


def register() -> dict:
    """Import the public classes and register them with the Auto classes. Returns them by name."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoModelForImageClassification, AutoProcessor
    from transformers.pipelines import PIPELINE_REGISTRY

    from .configuration_mfdn import MFDNConfig
    from .image_processing_mfdn import MFDNImageProcessor
    from .modeling_baselines_mfdn import Label2LabelConfig, Label2LabelModel, MultiLabelConfig, MultiLabelModel
    from .modeling_mfdn import MFDNModel, MFDNOutput
    from .pipeline_mfdn import MFDNPipeline
    from .processing_mfdn import MFDNProcessor

    for config_class, model_class in (
        (MFDNConfig, MFDNModel),
        (MultiLabelConfig, MultiLabelModel),
        (Label2LabelConfig, Label2LabelModel),
    ):
        AutoConfig.register(config_class.model_type, config_class)
        AutoModel.register(config_class, model_class)
        AutoModelForImageClassification.register(config_class, model_class)
        AutoImageProcessor.register(config_class, image_processor_classes={"torchvision": MFDNImageProcessor})
        AutoProcessor.register(config_class, MFDNProcessor)
        config_class.register_for_auto_class()
        model_class.register_for_auto_class("AutoModel")
    MFDNImageProcessor.register_for_auto_class()
    MFDNProcessor.register_for_auto_class()
    PIPELINE_REGISTRY.register_pipeline(
        "character-tagging", pipeline_class=MFDNPipeline, pt_model=AutoModelForImageClassification, type="multimodal"
    )
    return {name: value for name, value in locals().items() if name in __all__} | {"MFDNOutput": MFDNOutput}


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals().update(register())
    return globals()[name]


# `mfdn --help` need not wait seconds for torch: a command imports what it uses when it uses it.
if Path(sys.argv[0] if sys.argv else "").stem not in ("mfdn", "mfdn-tag"):
    globals().update(register())
