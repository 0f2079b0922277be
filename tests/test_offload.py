"""Weights that lie elsewhere: on the CPU, on disk, in shards. The outputs are those of the model as it is.

What is read outside the module that owns it is not there: transformers and accelerate fetch the weights of a module
when it is called. Every system, every cut.
"""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload, infer_auto_device_map

from modeling_mfdn import Label2LabelConfig, Label2LabelModel, MFDNConfig, MFDNModel, MultiLabelConfig, MultiLabelModel

SYSTEMS = {
    "mfdn": (MFDNConfig, MFDNModel, {}),
    "one-query": (MFDNConfig, MFDNModel, {"single_tag_query": True}),
    "no-mlm": (MFDNConfig, MFDNModel, {"num_decoder_layers": 0}),
    "vit": (MFDNConfig, MFDNModel, {"modality": "image"}),
    "multi-label": (MultiLabelConfig, MultiLabelModel, {}),
    "label2label": (Label2LabelConfig, Label2LabelModel, {}),
}
INPUT_IDS = torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 9, 4, 4, 10, 11, 3]])
# What is in every checkpoint there is: by these names it is found again.
NAMES = {
    "mfdn": "character_head.weight fusion_encoder.layers.0.attention.q_proj.weight fusion_encoder.norm.weight "
    "tag_decoder.layers.0.cross_attention.k_proj.weight tag_decoder.mask_vector tag_decoder.norm.weight "
    "tag_embeddings.norm.weight tag_embeddings.position_embeddings.weight tag_embeddings.tag_embeddings.weight "
    "tag_head.weight text_encoder.layers.0.mlp.fc1.weight vision_embeddings.cls_token "
    "vision_embeddings.patch_embed.weight vision_embeddings.position_embeddings",
    "multi-label": "character_head.weight tag_head.weight vision_embeddings.cls_token",
    "label2label": "label_batch_norm.bias label_batch_norm.num_batches_tracked label_batch_norm.running_mean "
    "label_batch_norm.running_var label_batch_norm.weight label_decoder.0.norm1.bias label_embeddings.weight "
    "label_head.bias label_head.weight label_norm.weight mask_embeddings.weight queries.weight "
    "query_decoder.0.mlp.fc2.bias query_head.bias query_head.weight query_norm.weight",
}


@pytest.fixture(params=SYSTEMS)
def system(request, tiny_config):
    """(model, the inputs that it takes)."""
    config_class, model_class, options = SYSTEMS[request.param]
    config = config_class(**(tiny_config.to_dict() | {"auto_map": None, "initializer_range": 0.2} | options))
    torch.manual_seed(0)
    model = model_class(config).eval()
    calls = [{"pixel_values": torch.randn(2, 3, 16, 16)}]
    if config.modality == "image+tags":
        calls.append(calls[0] | {"input_ids": INPUT_IDS, "attention_mask": (INPUT_IDS != 0).long()})
    return model, calls


def assert_same_outputs(found, wanted, calls):
    for call in calls:
        with torch.no_grad():
            outputs, expected = found(**call), wanted(**call)
        for name in ("logits", "tag_logits", "character_embedding"):
            if expected.get(name) is not None:
                torch.testing.assert_close(outputs[name], expected[name], atol=1e-6, rtol=1e-5)


def test_weights_that_are_fetched_when_a_module_is_called_give_the_same_outputs(system, tmp_path):
    model, calls = system
    assert_same_outputs(cpu_offload(copy.deepcopy(model), "cpu"), model, calls)
    assert_same_outputs(disk_offload(copy.deepcopy(model), tmp_path / "disk", "cpu"), model, calls)


def test_every_block_may_lie_on_disk_and_every_cut_that_auto_finds_works(system, tmp_path):
    model, calls = system
    model.save_pretrained(tmp_path / "saved")
    blocks = [name for name, _ in model.named_children()]
    maps = [{block: "disk" if block == gone else "cpu" for block in blocks} for gone in blocks]
    size = model.get_memory_footprint()
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        found = infer_auto_device_map(model, {"cpu": int(share * size)}, model._no_split_modules)
        if found not in maps:
            maps.append(found)
    modules = dict(model.named_modules())
    for number, device_map in enumerate(maps):
        assert all(name in modules for name in device_map)  # a parameter that is placed alone is fetched by nobody
        loaded = type(model).from_pretrained(
            tmp_path / "saved", device_map=device_map, offload_folder=tmp_path / str(number)
        )
        assert_same_outputs(loaded.eval(), model, calls)


def test_names_in_checkpoints_are_what_they_were(tiny_config):
    for name, names in NAMES.items():
        config_class, model_class, _ = SYSTEMS[name]
        model = model_class(config_class(**(tiny_config.to_dict() | {"auto_map": None})))
        assert set(names.split()) <= model.state_dict().keys()


def test_input_embeddings_can_be_had_and_set_and_the_vocabulary_grown(system):
    model, calls = system
    embeddings = model.get_input_embeddings()
    other = copy.deepcopy(embeddings)
    model.set_input_embeddings(other)
    assert model.get_input_embeddings() is other
    if model.config.modality == "image":
        with pytest.raises(ValueError, match="takes pictures alone"):
            model.resize_token_embeddings(20)
        return
    before = other.weight[:16].clone()
    model.resize_token_embeddings(20)  # 15 tags
    assert model.config.num_tags == 15 and model.config.vocab_size == 20
    assert torch.equal(model.get_input_embeddings().weight[:16], before)
    ids = torch.tensor([[2, 19, 4, 3, 0, 0, 0]])
    outputs = model(pixel_values=torch.randn(1, 3, 16, 16), input_ids=ids)
    assert outputs.tag_logits is None or outputs.tag_logits.shape[-1] == 15
