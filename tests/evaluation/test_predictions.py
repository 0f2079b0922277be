"""The evaluation loop with a model whose every answer is known."""

import inspect
import json
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator, debug_launcher
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader

from modeling_mfdn.configuration_mfdn import MFDNConfig
from modeling_mfdn.data.hidden_tags import hide_half
from modeling_mfdn.evaluation.predictions import (
    Calibrator,
    Confidence,
    Hints,
    NearTrain,
    Predictions,
    evaluate_model,
)
from modeling_mfdn.evaluation.results import format_results, write_results
from modeling_mfdn.gallery_mfdn import Calibration, CharacterStatistics
from modeling_mfdn.processing_mfdn import MFDNProcessor

SIZE, NUM_TAGS, NUM_CHARACTERS = 8, 40, 7
OFFSET = MFDNConfig().num_special_tokens


def config(**options) -> MFDNConfig:
    sizes = {"image_size": SIZE, "patch_size": 4, "hidden_size": 6, "num_attention_heads": 3, "max_tag_tokens": 12}
    return MFDNConfig(**(sizes | {"num_tags": NUM_TAGS, "num_labels": NUM_CHARACTERS} | options))


class FakeModel(nn.Module):
    """Reads post id and label from the first pixels. With tags it is always right; alone, the label is its second
    guess for even posts and its sixth for posts that 3 divides. Its tags: those that `tag_rule` names."""

    def __init__(self, config, tag_rule=None, num_queries=10):
        super().__init__()
        self.config, self.num_queries = config, num_queries
        self.tag_rule = tag_rule or (lambda post_id, given: [post_id % config.num_tags])
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen_input_ids = []

    def forward(
        self, pixel_values=None, input_ids=None, attention_mask=None, vision_states=None, return_tag_logits=None
    ):
        assert not self.training
        pixel_values = vision_states if pixel_values is None else pixel_values
        post_ids, labels = ((pixel_values[:, 0, 0, :2] + 1) * 127.5).round().long().unbind(1)
        order = torch.arange(self.config.num_labels).expand(len(labels), -1)
        logits = -((order - labels[:, None]) % self.config.num_labels).float()  # label first, label + 1 second ...
        if input_ids is None:
            worse = torch.where(post_ids % 3 == 0, 5, torch.where(post_ids % 2 == 0, 1, 0))
            logits = -((order - labels[:, None] + worse[:, None]) % self.config.num_labels).float()
        else:
            self.seen_input_ids.append(input_ids)
        tag_logits = None
        if self.config.predicts_tags and return_tag_logits is not False:
            tag_logits = torch.zeros(len(labels), self.num_queries, self.config.num_tags)
            for i, post_id in enumerate(post_ids.tolist()):
                given = [] if input_ids is None else (input_ids[i][input_ids[i] >= OFFSET] - OFFSET).tolist()
                for slot, tag in enumerate(self.tag_rule(post_id, given)):
                    tag_logits[i, slot % self.num_queries, tag] = 20.0
        return SimpleNamespace(logits=logits, tag_logits=tag_logits, vision_states=pixel_values)


def tags_of(post_id: int) -> list[int]:
    return sorted({post_id % NUM_TAGS, (post_id * 7 + 1) % NUM_TAGS, (post_id * 3 + 2) % NUM_TAGS, 5})


def post(post_id: int) -> dict[str, torch.Tensor]:
    pixels = torch.zeros(3, SIZE, SIZE)
    pixels[0, 0, 0], pixels[0, 0, 1] = post_id / 127.5 - 1, post_id % NUM_CHARACTERS / 127.5 - 1
    tags = tags_of(post_id)
    ids = [2, *(OFFSET + tag for tag in tags), 3]
    ids += [0] * (12 - len(ids))
    return {
        "pixel_values": pixels,
        "input_ids": torch.tensor(ids),
        "attention_mask": (torch.tensor(ids) != 0).long(),
        "labels": torch.tensor(post_id % NUM_CHARACTERS),
        "post_id": torch.tensor(post_id),
        "tag_targets": torch.zeros(NUM_TAGS, dtype=torch.bool).index_fill_(0, torch.tensor(tags), True),
    }


def run(count=13, batch_size=4, model=None, broken=(), **options):
    accelerator = Accelerator(cpu=True)
    posts = [post(i) for i in range(1, count + 1) if -i not in broken]
    for one in posts:
        one["readable"] = torch.tensor(int(one["post_id"]) not in broken)
    loader = accelerator.prepare(DataLoader(posts, batch_size=batch_size))
    return evaluate_model(model or FakeModel(config()), loader, accelerator, progress=False, **options)


def test_both_modalities_by_hand():
    results = run(12)
    assert set(results) == {"num_images", "num_broken", "image", "image+tags"}
    assert results["num_images"] == 12
    for modality in ("image", "image+tags"):
        assert set(results[modality]) == {
            "top1_accuracy",
            "top5_accuracy",
            "macro_top1_accuracy",
            "character_loss",
            "tags",
        }
    # Of 1 ... 12: right when neither 2 nor 3 divides (1, 5, 7, 11); not among five when 3 divides (3, 6, 9, 12).
    assert results["image"]["top1_accuracy"] == pytest.approx(4 / 12)
    assert results["image"]["top5_accuracy"] == pytest.approx(8 / 12)
    assert results["image+tags"]["top1_accuracy"] == 1.0
    best = torch.log_softmax(-torch.arange(7.0), dim=0)[0]
    assert results["image+tags"]["character_loss"] == pytest.approx(-best.item(), abs=1e-5)


def test_a_ragged_last_batch_counts_in_full():
    flat, whole = flatten(run(13, 4)), flatten(run(13, 13))
    assert flat.keys() == whole.keys()
    for name, value in flat.items():
        assert value == pytest.approx(whole[name], abs=1e-6), name


def flatten(results, prefix=""):
    flat = {}
    for name, value in results.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def two_processes(path):
    torch.set_num_threads(1)  # the threads that the parent has are not in its fork, which would wait for them
    AcceleratorState._reset_state(reset_partial_state=True)  # the parent process left its own, of one process
    results = run(13, 4, broken=BROKEN, max_bad_share=0.5)
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    path.with_suffix(f".{accelerator.process_index}").write_text(json.dumps(results))


BROKEN = (2, 5, 13)


def test_a_broken_picture_counts_nowhere_but_as_one(tmp_path):
    without = run(13, 4, broken=[-post_id for post_id in BROKEN])
    left_out = run(13, 4, broken=BROKEN, max_bad_share=0.5, reducers=[Predictions()])
    assert left_out.pop("predictions")["post_id"].tolist() == [i for i in range(1, 14) if i not in BROKEN]
    assert (left_out.pop("num_broken"), without.pop("num_broken")) == (3, 0)
    assert flatten(left_out) == pytest.approx(flatten(without))
    assert "3 further images" in format_results({"num_broken": 3, "dataset": "d", "split": "s"} | left_out)
    with pytest.raises(ValueError, match="3 of 13 pictures cannot be decoded, more than --max_bad_share 0.2"):
        run(13, 4, broken=BROKEN, max_bad_share=0.2)
    with pytest.raises(ValueError, match="no picture that can be read"):
        run(3, 4, broken=(1, 2, 3), max_bad_share=1)


def test_two_processes_count_every_image_once(tmp_path):
    alone = flatten(run(13, 4, broken=BROKEN, max_bad_share=0.5))
    debug_launcher(two_processes, args=(tmp_path / "results",), num_processes=2)
    for rank in range(2):
        together = flatten(json.loads((tmp_path / f"results.{rank}").read_text()))
        assert together.keys() == alone.keys()
        for name, value in together.items():
            assert value == pytest.approx(alone[name], abs=1e-6), name


def test_perfect_tags_have_no_miss_and_full_precision():
    results = run(model=FakeModel(config(), tag_rule=lambda post_id, given: tags_of(post_id)))
    for modality in ("image", "image+tags"):
        tags = results[modality]["tags"]["all"]
        assert tags["miss_rate"] == 0.0
        assert tags["mean_average_precision"] == pytest.approx(1.0)


def test_repeating_given_tags_is_worth_nothing_in_completion():
    def repeat(post_id, given):
        return given

    results = run(model=FakeModel(config(), tag_rule=repeat))["image+tags"]["tags"]["all"]
    assert results["miss_rate"] > 0.7
    assert results["num_positives"] == sum((len(tags_of(post_id)) + 1) // 2 for post_id in range(1, 14))


def test_one_query_stands_for_all_slots():
    model = FakeModel(config(), tag_rule=lambda post_id, given: tags_of(post_id), num_queries=1)
    assert run(model=model)["image"]["tags"]["all"]["miss_rate"] == 0.0


def test_characters_are_asked_with_all_tags_and_completion_with_half():
    model = FakeModel(config())
    run(3, 3, model=model)
    all_tags, half = model.seen_input_ids
    assert (all_tags >= OFFSET).sum(1).tolist() == [len(tags_of(post_id)) for post_id in (1, 2, 3)]
    assert (half >= OFFSET).sum(1).tolist() == [len(tags_of(post_id)) // 2 for post_id in (1, 2, 3)]


def test_the_hidden_half_depends_on_post_and_tag_alone():
    ids = torch.tensor([[2, 9, 10, 11, 12, 13, 3, 0], [2, 13, 11, 10, 9, 12, 3, 0], [2, 9, 10, 11, 12, 13, 3, 0]])
    hidden = hide_half(ids, torch.tensor([7, 7, 8]), config())
    shown = [set(row[row >= OFFSET].tolist()) for row in hidden]
    assert shown[0] == shown[1] and len(shown[0]) == 2
    assert (hidden == config().mask_token_id).sum(1).tolist() == [3, 3, 3]
    assert torch.equal(hidden[:, [0, 6, 7]], ids[:, [0, 6, 7]])
    draws = hide_half(ids[:1].expand(200, -1), torch.arange(200), config())
    shown_often = torch.stack([(draws == tag).sum() for tag in range(9, 14)])
    assert shown_often.min() > 50 and shown_often.max() < 110  # 80 expected


def test_posts_with_one_and_no_tag_can_be_halved():
    hidden = hide_half(torch.tensor([[2, 9, 3, 0], [2, 3, 0, 0]]), torch.tensor([1, 2]), config())
    assert hidden.tolist() == [[2, 4, 3, 0], [2, 3, 0, 0]]


def test_a_unimodal_model_has_only_images():
    results = run(model=FakeModel(config(modality="image")))
    assert set(results) == {"num_images", "num_broken", "image"} and "tags" not in results["image"]


def test_a_model_without_tag_decoder_has_no_tag_metrics():
    results = run(model=FakeModel(config(num_decoder_layers=0)))
    assert set(results) == {"num_images", "num_broken", "image", "image+tags"}
    assert "tags" not in results["image"] and "tags" not in results["image+tags"]


def test_fewer_than_five_characters_are_said_aloud(caplog):
    class ThreeCharacters(FakeModel):
        def forward(self, pixel_values, **options):
            outputs = super().forward(pixel_values, **options)
            outputs.logits = torch.zeros(len(pixel_values), 3)
            return outputs

    accelerator = Accelerator(cpu=True)
    posts = [post(post_id) | {"labels": torch.tensor(post_id % 3)} for post_id in range(6)]
    model = ThreeCharacters(config(num_labels=3, modality="image"))
    results = evaluate_model(model, accelerator.prepare(DataLoader(posts, 4)), accelerator, progress=False)
    assert results["image"]["top5_accuracy"] == 1.0
    assert "3 characters" in caplog.text


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored(training):
    model = FakeModel(config()).train(training)
    run(model=model)
    assert model.training is training


def test_stopping_early_leaves_the_accelerator_as_it_was():
    accelerator = Accelerator(cpu=True)
    loader = accelerator.prepare(DataLoader([post(i) for i in range(13)], batch_size=4))
    results = evaluate_model(FakeModel(config()), loader, accelerator, max_batches=2, progress=False)
    assert results["num_images"] == 8
    assert not accelerator.gradient_state.in_dataloader


def test_confidence_is_the_models_from_the_image_alone(tiny_model, tiny_config):
    pixel_values = torch.randn(5, 3, 16, 16)
    batches = [
        {
            "pixel_values": part,
            "labels": torch.arange(len(part)),
            "post_id": torch.arange(len(part)),
            "input_ids": torch.tensor([[2, 6, 8, 3, 0, 0, 0]] * len(part)),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0, 0]] * len(part)),
            "tag_targets": torch.zeros(len(part), tiny_config.num_tags, dtype=torch.bool),
        }
        for part in pixel_values.split(3)
    ]
    confidence = Confidence(4.0)
    results = evaluate_model(
        tiny_model.train(), batches, Accelerator(cpu=True), reducers=[confidence], progress=False
    )["confidence"]
    assert results["truth"].tolist() == [0, 1, 2, 0, 1] and tiny_model.training
    logits = tiny_model.eval()(pixel_values).logits
    assert results["predicted"].tolist() == logits.argmax(dim=1).tolist()
    expected = torch.nn.functional.cross_entropy(logits / 4, results["truth"])
    assert results["negative_log_likelihood"]["as_stored"] == pytest.approx(expected.item(), rel=1e-5)
    sure = torch.cat(confidence.confidence)
    torch.testing.assert_close(sure[:, 1], (logits / 4).softmax(dim=1).amax(dim=1))


def test_every_forward_runs_once_whatever_is_counted(tiny_model, tiny_config):
    calls = []
    tiny_model.vision_encoder.register_forward_hook(lambda *_: calls.append("vision"))
    tiny_model.fusion_encoder.register_forward_hook(lambda *_: calls.append("fusion"))
    batch = {
        "pixel_values": torch.randn(2, 3, 16, 16),
        "labels": torch.tensor([0, 1]),
        "post_id": torch.tensor([7, 8]),
        "input_ids": torch.tensor([[2, 6, 8, 9, 3, 0, 0]] * 2),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]] * 2),
        "tag_targets": torch.zeros(2, tiny_config.num_tags, dtype=torch.bool),
    }
    reducers = [Predictions(), Hints(tiny_config, (0, 1, 2)), Confidence(2.0), Calibrator()]
    results = evaluate_model(tiny_model, [batch], Accelerator(cpu=True), reducers=reducers, progress=False)
    assert calls.count("vision") == 1
    assert calls.count("fusion") == 5  # image, all tags, half of them, 1 and 2 hints; 0 and all are the first two
    assert results["hints"]["0"] == results["image"]["top1_accuracy"]
    assert results["hints"]["all"] == results["image+tags"]["top1_accuracy"]


def test_an_empty_split_is_an_error():
    with pytest.raises(ValueError, match="empty"):
        evaluate_model(FakeModel(config()), [], Accelerator(cpu=True), progress=False)


def test_the_default_threshold_is_the_processors():
    default = inspect.signature(MFDNProcessor).parameters["tag_threshold"].default
    assert inspect.signature(evaluate_model).parameters["tag_threshold"].default == default


def test_results_are_written_whole_with_versions(tmp_path):
    write_results({"num_images": 3}, tmp_path / "results.json")
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["num_images"] == 3 and "torch" in written["versions"]
    assert [file.name for file in tmp_path.iterdir()] == ["results.json"]


def test_how_far_a_picture_lies_from_its_character():
    """Root mean square over the axes; of a character without pictures in the statistics nobody knows it."""
    means, counts = torch.tensor([[0.0, 0, 0], [3, 4, 0], [9, 9, 9]]), torch.tensor([5.0, 2, 0])
    statistics = CharacterStatistics(
        torch.ones(3), torch.eye(3), torch.ones(3), means, counts, calibration=Calibration(), head_size=1.0
    )
    predictions = Predictions(statistics)
    pictures = {"logits": torch.eye(3), "picture_embedding": torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 1]])}
    predictions.add({"post_id": torch.arange(3), "labels": torch.arange(3), "image": pictures})
    distance = predictions.compute()["distance"]
    torch.testing.assert_close(distance[:2], torch.tensor([0.0, (25 / 3) ** 0.5]))
    assert distance[2].isnan()


def test_what_copies_in_train_are_worth():
    near = NearTrain([7, 9, 400])
    for ids, right in (([7, 8], [True, False]), ([9, 10], [False, True])):
        labels = torch.tensor([0, 1])
        logits = torch.nn.functional.one_hot(torch.where(torch.tensor(right), labels, 1 - labels), 2).float()
        near.add({"post_id": torch.tensor(ids), "labels": labels, "image": {"logits": logits}})
    assert near.compute() == {"num_near": 2, "num_others": 2, "image": {"near": 0.5, "others": 0.5}}
    nobody = NearTrain([])
    nobody.add({"post_id": torch.tensor([7]), "labels": torch.tensor([0]), "image": {"logits": torch.eye(2)[:1]}})
    assert nobody.compute() == {"num_near": 0, "num_others": 1, "image": {"near": None, "others": 1.0}}
