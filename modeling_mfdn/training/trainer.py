"""transformers.Trainer with what MFDN adds: hidden tags, two losses in the log, validation in both modalities."""

import os
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from accelerate.data_loader import prepare_data_loader
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction, rotate_checkpoints

from ..configuration_mfdn import MFDNConfig
from ..data.collator import MFDNCollator
from ..data.dataset import check_bad_share
from ..data.hidden_tags import hide_tags, step_generator
from ..data.parquet_rows import ParquetRows, RowGroupBatches
from ..modeling_mfdn import MFDNOutput
from .finetuning import AveragedWeights, RestingTrunk, decayed_groups
from .run_folder import UNFINISHED
from .schedules import RATE_SCHEDULES, MaskScheduler, default_warmup_steps, learning_rate_factor


@dataclass
class MFDNTrainingArguments(TrainingArguments):
    """transformers.TrainingArguments with the paper's recipe as defaults (§V-A)."""

    _argument_group_name = "how to train: transformers.TrainingArguments, with the paper's recipe as defaults"

    output_dir: str = field(default="mfdn", metadata={"help": "folder for checkpoints and the trained model"})
    num_train_epochs: float = field(default=50, metadata={"help": "passes over the training split (paper: 50)"})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "posts a step and device (paper: 64)"})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "posts a step and device in evaluation"})
    learning_rate: float = field(default=1e-3, metadata={"help": "base rate; the schedule is two-stage cosine"})
    rate_width: int = field(
        default=0,
        metadata={"help": "the rate is for a model of this width; others take it as 1 / width (0: it is as it is)"},
    )
    optim: str = field(default="sgd", metadata={"help": "optimizer, a name that transformers knows (paper: sgd)"})
    # Paper §V-A says only "SGD". Here: momentum 0.9, no weight decay and no clipping, as in animesion.
    optim_args: str | None = field(default="momentum=0.9", metadata={"help": "further optimizer arguments, a=1,b=2"})
    weight_decay: float = field(default=0.0, metadata={"help": "weight decay (LayerNorm and biases are left out)"})
    max_grad_norm: float = field(default=0.0, metadata={"help": "gradient clipping; 0 = none"})
    warmup_steps: float = field(
        default=-1, metadata={"help": "linear warm-up: steps, or a fraction below 1; -1 = min(1000, a twentieth)"}
    )
    eval_strategy: str = field(default="epoch", metadata={"help": "when to validate, in both modalities"})
    save_strategy: str = field(default="epoch", metadata={"help": "when to write a checkpoint"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints to keep"})
    image_pass_weight: float = field(
        default=0.0,
        metadata={"help": "also show every picture of a step without tags, its losses weighted so (paper: 0)"},
    )
    distillation_weight: float = field(
        default=0.0,
        metadata={"help": "of that pass: how much it learns from the character that the pass with tags names"},
    )
    distillation_temperature: float = field(
        default=1.0, metadata={"help": "above 1: softer targets, in which the runners-up count for more"}
    )
    rate_schedule: str = field(
        default="two_stage",
        metadata={
            "help": "of the learning rate: two_stage = the paper's; cosine = one",
            "choices": list(RATE_SCHEDULES),
        },
    )
    layer_decay: float = field(
        default=1.0,
        metadata={"help": "each layer of the image stack learns at so many times the rate of the one above"},
    )
    ema_decay: float = field(
        default=0.0,
        metadata={
            "help": "average the weights over steps, each keeping so much of it; the average is judged and saved"
        },
    )
    freeze_trunk: float = field(
        default=0.0, metadata={"help": "leave the image stack as it is for this share of the steps; 1 = throughout"}
    )
    logging_steps: float = field(default=20, metadata={"help": "log every so many steps"})
    dataloader_num_workers: int = field(default=2, metadata={"help": "processes that decode images"})
    # Kept workers draw nothing at the start of an epoch, new ones do: the shuffle would depend on their number.
    dataloader_persistent_workers: bool = field(
        default=False, metadata={"help": "keep them from epoch to epoch: faster, but weights then depend on them"}
    )
    max_bad_share: float = field(
        default=0.01,
        metadata={"help": "pictures that cannot be decoded are left out and named; more than this share ends the run"},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "keep False: the collator needs all columns"})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "every parameter is always used"})

    def __post_init__(self):
        self.scaled_warmup = self.warmup_steps < 0
        self.warmup_steps = max(0, self.warmup_steps)
        self.dataloader_persistent_workers &= self.dataloader_num_workers > 0
        if self.load_best_model_at_end and self.metric_for_best_model is None:
            self.metric_for_best_model, self.greater_is_better = "image_top1_accuracy", True
        super().__post_init__()
        if not 0 <= self.max_bad_share <= 1:
            raise ValueError(f"--max_bad_share must lie in [0, 1], got {self.max_bad_share}.")
        if self.distillation_weight and not self.image_pass_weight:
            raise ValueError("--distillation_weight is of the pass without tags: set --image_pass_weight too.")
        if self.distillation_temperature <= 0:
            raise ValueError(f"--distillation_temperature must be above 0, got {self.distillation_temperature}.")
        if self.distillation_temperature != 1.0 and not self.distillation_weight:
            raise ValueError("--distillation_temperature means nothing without --distillation_weight.")

        if self.rate_width < 0:
            raise ValueError(f"--rate_width must not be negative, got {self.rate_width}.")
        for name in ("layer_decay", "ema_decay", "freeze_trunk"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} must lie in [0, 1], got {getattr(self, name)}.")
        if self.ema_decay and self.load_best_model_at_end:
            raise ValueError("--load_best_model_at_end and --ema_decay both say what is kept: choose one.")

    def get_warmup_steps(self, num_training_steps: int) -> int:
        if self.scaled_warmup:
            return default_warmup_steps(num_training_steps)
        return super().get_warmup_steps(num_training_steps)


class EpochSetter(TrainerCallback):
    """Tells the collator and the order of the rows the epoch, which seeds what is drawn of a post and its turn."""

    def __init__(self, collator: MFDNCollator):
        self.listeners: list[MFDNCollator | RowGroupBatches] = [collator]

    def on_epoch_begin(self, args, state, control, **kwargs):
        # A resumed run begins within its epoch: 2.6 is epoch 2. A whole epoch may be stored as 2.9999999.
        for listener in self.listeners:
            listener.set_epoch(int((state.epoch or 0.0) + 1e-6))


class FreshCounts(TrainerCallback):
    """Forgets the losses of an attempt that did not fit into memory (`auto_find_batch_size`)."""

    def __init__(self, trainer: "MFDNTrainer"):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer.forget_counts()


class MFDNTrainer(Trainer):
    """Trains an [`MFDNModel`] on batches of [`MFDNCollator`].

    Args:
        mask_scheduler: the callback that holds the current mask ratio; None for a model of the "image" modality.
        data_collator: for training; `eval_collator` for validation (no augmentation, fixed choice of tags).
        evaluate_model: the pass over a split, `evaluation.predictions.evaluate_model`; given here, because evaluation
            stands above training. None for a trainer that only trains.
        tag_aggregation: how slot distributions become one score a tag in validation, see `aggregate_tag_scores`.
    """

    def __init__(
        self,
        *args,
        eval_collator: MFDNCollator,
        evaluate_model: Callable[..., dict] | None = None,
        mask_scheduler: MaskScheduler | None = None,
        tag_aggregation: str = "noisy_or",
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        self.eval_collator, self.evaluate_model = eval_collator, evaluate_model
        self.mask_scheduler = mask_scheduler
        self.tag_aggregation = tag_aggregation
        if mask_scheduler is not None:
            self.add_callback(mask_scheduler)
        self.epoch_setter = EpochSetter(self.data_collator)
        self.add_callback(self.epoch_setter)
        self.add_callback(FreshCounts(self))
        self.averaged = AveragedWeights(self.model, self.args.ema_decay) if self.args.ema_decay else None
        if self.averaged is not None:
            self.add_callback(self.averaged)
        if self.args.freeze_trunk:
            self.add_callback(RestingTrunk(self.args.freeze_trunk))
        self._is_saving = False
        self.forget_counts()

    def forget_counts(self) -> None:
        self._micro_step = (-1, 0)  # (optimizer step, batches since)
        self._losses: dict[str, list[torch.Tensor]] = {}  # of each batch since the last log
        self._pictures: list[torch.Tensor] = []  # [2] of each batch: left out as broken, seen
        self.num_broken = self.num_seen = 0  # up to the last log, over all processes

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Two-stage cosine decay with warm-up, whatever `lr_scheduler_type` says."""
        if self.lr_scheduler is None:
            warmup_steps = self.args.get_warmup_steps(num_training_steps)
            factor: Callable[[int], float] = lambda step: learning_rate_factor(  # noqa: E731
                min(step, num_training_steps), num_training_steps, warmup_steps, self.args.rate_schedule
            )
            self.lr_scheduler = LambdaLR(optimizer or self.optimizer, factor)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """As transformers; with `layer_decay` each layer of the image stack has a rate of its own."""
        if self.optimizer is None and self.args.layer_decay < 1:
            model = self.model if model is None else model
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = decayed_groups(model, self.args.learning_rate, self.args.weight_decay, self.args.layer_decay)
            self.optimizer = optimizer_class(groups, **options)
        return super().create_optimizer(model)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.averaged is not None:
            self.averaged.load(Path(resume_from_checkpoint))

    def take_average(self) -> None:
        """Put the averaged weights into the model that was trained; nothing without `ema_decay`."""
        if self.averaged is not None:
            self.accelerator.unwrap_model(self.model).load_state_dict(self.averaged.model.state_dict())

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        """Hides tags on the device, then adds up the model's two losses (Eq. 6)."""
        config = self.accelerator.unwrap_model(model).config
        if "num_broken" in inputs:
            num_broken = inputs["num_broken"].sum()
            self._pictures.append(torch.stack([num_broken, num_broken + len(inputs["labels"])]))
        batch = {"pixel_values": inputs["pixel_values"], "labels": inputs["labels"]}
        if config.modality == "image+tags":
            generator = self._next_generator(inputs["input_ids"].device)
            batch["input_ids"], tag_labels = hide_tags(
                inputs["input_ids"], self.mask_scheduler.draw(len(inputs["input_ids"]), generator), config, generator
            )
            batch["attention_mask"] = inputs["attention_mask"]
            if config.predicts_tags:
                batch["tag_labels"] = tag_labels
        elif config.predicts_tags:  # a baseline that reads no tags and predicts them all
            _, batch["tag_labels"] = hide_tags(inputs["input_ids"], 1.0, config)
        outputs = model(**batch)
        loss = outputs.loss + self.smoothing(outputs.logits, batch["labels"], config)
        if self.args.image_pass_weight:
            loss = loss + self.args.image_pass_weight * self.image_pass(model, batch, inputs, outputs)
        for name in ("character_loss", "tag_loss"):
            if (part := getattr(outputs, name)) is not None:
                self._losses.setdefault(name, []).append(part.detach())
        return (loss, outputs) if return_outputs else loss

    def image_pass(self, model, batch: dict, inputs: dict, with_tags: MFDNOutput) -> torch.Tensor:
        """The loss of the same pictures without any tag, all of which are to be found.

        With `distillation_weight` the character is also learnt from what the pass `with_tags` says.
        """
        config = self.accelerator.unwrap_model(model).config
        alone = {"vision_states": with_tags.vision_states, "labels": batch["labels"]}
        if "tag_labels" in batch:
            _, alone["tag_labels"] = hide_tags(inputs["input_ids"], 1.0, config)
        outputs = model(**alone)
        loss = outputs.loss + self.smoothing(outputs.logits, batch["labels"], config)
        if not self.args.distillation_weight:
            return loss
        temperature = self.args.distillation_temperature
        teacher = (with_tags.logits.detach().float() / temperature).softmax(dim=1)
        distillation = nn.functional.cross_entropy(outputs.logits.float() / temperature, teacher)
        # Squared: else a softer target would also weigh less (Hinton et al. 2015, §2).
        return loss + self.args.distillation_weight * temperature**2 * distillation

    def smoothing(self, logits: torch.Tensor, labels: torch.Tensor, config: MFDNConfig) -> torch.Tensor | float:
        """What `label_smoothing_factor` adds to the character's cross entropy: that share of the target moves from the
        label [B] to all characters of `logits` [B, C] alike. The models' own losses are the paper's, without."""
        if not self.args.label_smoothing_factor:
            return 0.0
        scores = logits.float().log_softmax(dim=1)
        moved = scores.gather(1, labels[:, None]).squeeze(1) - scores.mean(dim=1)
        return config.character_loss_weight * self.args.label_smoothing_factor * moved.mean()

    def _next_generator(self, device: torch.device) -> torch.Generator:
        step, micro_step = self._micro_step
        self._micro_step = (self.state.global_step, micro_step + 1 if step == self.state.global_step else 0)
        return step_generator(self.args.seed, *self._micro_step, self.args.process_index, device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds both losses (means since the last log, over all processes) and the mask ratio."""
        if "loss" in logs:
            for name, values in self._losses.items():
                mean = self.accelerator.reduce(torch.stack(values).mean(), reduction="mean")
                logs[name] = round(mean.item(), 6)
            self._losses.clear()
            self.count_broken()
            if self.num_broken:
                logs["broken_pictures"] = self.num_broken
            if self.mask_scheduler is not None:
                logs["mask_ratio"] = round(self.mask_scheduler.ratio, 6)
        super().log(logs, start_time)

    def count_broken(self) -> None:
        """Adds up what was left out since the last call, over all processes.

        Raises ValueError: that is more than `max_bad_share`, of the pictures seen or of one epoch.
        """
        if not self._pictures:
            return
        counts = self.accelerator.reduce(torch.stack(self._pictures).sum(dim=0), reduction="sum").tolist()
        self._pictures.clear()
        self.num_broken, self.num_seen = self.num_broken + counts[0], self.num_seen + counts[1]
        check_bad_share(self.num_broken, max(self.num_seen, len(self.train_dataset)), self.args.max_bad_share)

    def _get_output_dir(self, trial) -> str:
        folder = super()._get_output_dir(trial)
        return os.path.join(folder, UNFINISHED) if self._is_saving else folder

    def _save_checkpoint(self, model, trial) -> None:
        """As transformers, but the checkpoint appears when it is whole: killed at any moment, or with the disk full,
        the one before is the newest."""
        self._is_saving = True
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self._is_saving = False
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        folder = Path(self._get_output_dir(trial))
        checkpoint = folder / f"checkpoint-{self.state.global_step}"
        if self.state.best_global_step:  # transformers looked for it in the unfinished folder
            best = folder / f"checkpoint-{self.state.best_global_step}"
            is_there = best == checkpoint or best.is_dir()
            self.state.best_model_checkpoint = str(best) if is_there else None
        if self.args.should_save:
            unfinished = folder / UNFINISHED / checkpoint.name
            self.state.save_to_json(str(unfinished / "trainer_state.json"))
            if self.averaged is not None:
                self.averaged.save(unfinished)
            if checkpoint.exists():  # of the run that this one goes on from, at another step before
                shutil.rmtree(checkpoint)
            os.replace(unfinished, checkpoint)
            shutil.rmtree(unfinished.parent)
            best = self.state.best_model_checkpoint
            rotate_checkpoints(str(folder), self.args.save_total_limit, best, use_mtime=True)
        self.accelerator.wait_for_everyone()

    def get_train_dataloader(self) -> DataLoader:
        """Batches in the order of [`RowGroupBatches`]: each process reads its own row groups, and each row once.

        A resumed run goes on behind what was seen without reading it: only the numbers of the rows are skipped.
        """
        if not isinstance(self.train_dataset, ParquetRows):
            return super().get_train_dataloader()
        args = self.args
        batches = RowGroupBatches(
            self.train_dataset,
            self._train_batch_size,
            args.seed if args.data_seed is None else args.data_seed,
            args.process_index,
            args.world_size,
        )
        self.epoch_setter.listeners[1:] = [batches]
        loader = DataLoader(
            self.train_dataset,
            batch_sampler=batches,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            in_order=args.dataloader_in_order,
        )
        # For one process, because the batches are this one's already.
        return prepare_data_loader(loader, self.accelerator.device, num_processes=1, put_on_device=True)

    def get_eval_dataloader(self, eval_dataset=None) -> DataLoader:
        """Batches in the data set's order, without augmentation."""
        with self.collating_for_evaluation():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset) -> DataLoader:
        """As [`MFDNTrainer.get_eval_dataloader`]."""
        with self.collating_for_evaluation():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def collating_for_evaluation(self):
        training, self.data_collator = self.data_collator, self.eval_collator
        prepared = self.accelerator._dataloaders
        number = len(prepared)
        try:
            yield
        finally:
            self.data_collator = training
            del prepared[number:]  # else accelerate holds on to a loader for each evaluation

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The pass over a split that `evaluate` and `predict` of transformers' Trainer take.

        Returns:
            `metrics` of both modalities (`eval_image_top1_accuracy`, `eval_image+tags_top1_accuracy`, …), `eval_loss`,
            the character's loss from the picture alone, and those of `compute_metrics`; unless
            `prediction_loss_only`, `predictions` [n, C], the logits from the picture alone, and `label_ids` [n].
        """
        if self.evaluate_model is None:
            raise ValueError("To evaluate, MFDNTrainer needs evaluate_model=evaluation.predictions.evaluate_model.")
        self.callback_handler.eval_dataloader = dataloader  # its length is that of the progress bar
        logits = Logits(None if prediction_loss_only else self.preprocess_logits_for_metrics)
        model = self.averaged.model if self.averaged else self.accelerator.unwrap_model(self.model)
        results = self.evaluate_model(
            model,
            dataloader,
            self.accelerator,
            tag_aggregation=self.tag_aggregation,
            max_bad_share=self.args.max_bad_share,
            progress=False,  # transformers draws one
            reducers=[] if prediction_loss_only else [logits],
            on_step=self.on_prediction_step,
        )
        metrics = flatten_results(results, metric_key_prefix)
        loss = model.config.character_loss_weight * results["image"]["character_loss"]
        metrics[f"{metric_key_prefix}_loss"] = loss
        predictions, labels = results.get("logits", (None, None))
        if self.compute_metrics is not None and predictions is not None:
            computed = self.compute_metrics(EvalPrediction(predictions=predictions, label_ids=labels))
            metrics |= {
                name if name.startswith(f"{metric_key_prefix}_") else f"{metric_key_prefix}_{name}": value
                for name, value in computed.items()
            }
        return EvalLoopOutput(predictions, labels, metrics, results["num_images"])

    def on_prediction_step(self) -> None:
        self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)


class Logits:
    """A reducer that keeps the logits from the picture alone [n, C] and the labels [n], as numpy arrays."""

    name = "logits"

    def __init__(self, preprocess: Callable | None = None):
        self.preprocess, self.logits, self.labels = preprocess, [], []

    def add(self, found: dict) -> None:
        logits = found["image"]["logits"]
        self.logits.append((self.preprocess(logits, found["labels"]) if self.preprocess else logits).cpu())
        self.labels.append(found["labels"].cpu())

    def compute(self):
        return torch.cat(self.logits).numpy(), torch.cat(self.labels).numpy()


def flatten_results(results: dict, prefix: str) -> dict[str, float]:
    """{"image": {"top1_accuracy": 0.5, "tags": {…}}} → {"eval_image_top1_accuracy": 0.5}; of the tag metrics only the
    mean average precision over all tags."""
    metrics = {}
    for modality in ("image", "image+tags"):
        for name, value in results.get(modality, {}).items():
            if name == "tags":
                metrics[f"{prefix}_{modality}_tag_map"] = value["all"]["mean_average_precision"]
            else:
                metrics[f"{prefix}_{modality}_{name}"] = value
    return metrics
