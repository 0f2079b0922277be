"""MFDN: identifies anime characters and predicts tags, with tags that it needs less and less.

Importing this package registers its classes with transformers, so that `AutoModel` and the others load a saved folder
without `trust_remote_code`; and what is saved carries the code along, for processes without this package.
"""

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
    AutoImageProcessor.register(config_class, MFDNImageProcessor)
    AutoProcessor.register(config_class, MFDNProcessor)
    config_class.register_for_auto_class()
    model_class.register_for_auto_class("AutoModel")
MFDNImageProcessor.register_for_auto_class()
MFDNProcessor.register_for_auto_class()
PIPELINE_REGISTRY.register_pipeline(
    "character-tagging", pipeline_class=MFDNPipeline, pt_model=AutoModelForImageClassification, type="multimodal"
)

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
