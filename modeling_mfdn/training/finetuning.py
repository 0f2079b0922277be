"""What fine-tuning from public weights adds to a training: slower rates for lower layers, an average of the weights,
a trunk that rests at first."""

from pathlib import Path

from safetensors.torch import load_file, save_file
from timm.optim import param_groups_layer_decay
from timm.utils import ModelEmaV3
from torch import nn
from transformers import TrainerCallback

from .vision_weights import IMAGE_STACKS

AVERAGE = "ema.safetensors"  # in a checkpoint


def layer_groups(model: nn.Module) -> dict:
    """What is how deep, for `timm`'s layer-wise decay: patch embedding, vision stack or trunk, fusion stack; whatever
    has no layer below the answer (text branch, decoder, heads) learns at the full rate."""
    stem = r"^vision_embeddings|^trunk\.(?:timm_model\.)?(?:cls_token|pos_embed|reg_token|patch_embed|embeddings)"
    trunk = r"^trunk\..*?(?:blocks|layers?)\.(\d+)"
    return {
        "stem": stem,
        "vision": [(r"^vision_encoder\.layers\.(\d+)", None), (trunk, None)],
        "fusion": r"^fusion_encoder\.layers\.(\d+)",
        "rest": r".*",
    }


def decayed_groups(model: nn.Module, learning_rate: float, weight_decay: float, layer_decay: float) -> list[dict]:
    """Parameter groups of an optimizer: each layer below the answer has `layer_decay` times the rate of the one above.

    Biases, norms and learned tokens have no weight decay.
    """
    model.group_matcher = lambda coarse=False: layer_groups(model)  # as timm asks its own models
    try:
        groups = param_groups_layer_decay(
            model,
            weight_decay,
            no_weight_decay_list=("*cls_token", "*register_tokens", "*position_embeddings*", "*mask_vector"),
            layer_decay=layer_decay,
        )
    finally:
        del model.group_matcher
    return [
        {"params": group["params"], "weight_decay": group["weight_decay"], "lr": learning_rate * group["lr_scale"]}
        for group in groups
    ]


class AveragedWeights(TrainerCallback):
    """An exponential moving average of the weights, which is what is evaluated and saved.

    Args:
        model: that is trained.
        decay: share of the average that each step keeps, once the run is long enough to have one.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.average = ModelEmaV3(model, decay=decay, use_warmup=True)

    @property
    def model(self) -> nn.Module:
        """The averaged model, in evaluation mode."""
        return self.average.module

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.average.update(model, step=state.global_step)

    def save(self, checkpoint: Path) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}, checkpoint / AVERAGE
        )

    def load(self, checkpoint: Path) -> None:
        """Raises ValueError: the run that wrote the checkpoint kept no average."""
        if not (checkpoint / AVERAGE).is_file():
            raise ValueError(f"{checkpoint} holds no {AVERAGE}: its run had no --ema_decay. Resume with its flags.")
        self.model.load_state_dict(load_file(checkpoint / AVERAGE))


class RestingTrunk(TrainerCallback):
    """Keeps the image stack as it is for the first `share` of the steps (1 = throughout)."""

    def __init__(self, share: float):
        self.share, self.rests = share, False

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        rests = state.global_step < self.share * state.max_steps
        if rests != self.rests:
            self.rests = rests
            for name, parameter in model.named_parameters():
                if name.removeprefix("module.").startswith(IMAGE_STACKS):
                    parameter.requires_grad_(not rests)


__all__ = ["AveragedWeights", "RestingTrunk", "decayed_groups"]
