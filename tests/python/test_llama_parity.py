"""The LLaMA equals transformers': logits, loss and gradients on random models with every option, and files both ways."""

import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

BASE = dict(
    vocab_size=211,
    hidden_size=64,
    intermediate_size=112,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=128,
    rms_norm_eps=1e-6,
    initializer_range=0.08,
)
LLAMA3 = dict(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
OPTIONS = {
    "plain": {},
    "grouped_query": dict(num_key_value_heads=2),
    "multi_query": dict(num_key_value_heads=1),
    "tied": dict(tie_word_embeddings=True),
    "head_dim": dict(head_dim=24),
    "rope_theta": dict(rope_theta=500000.0),
    "rope_linear": dict(rope_scaling=dict(rope_type="linear", factor=4.0)),
    "rope_llama3": dict(rope_scaling=LLAMA3),
    "eps": dict(rms_norm_eps=1e-3),
    "odd_sizes": dict(hidden_size=50, num_attention_heads=5, num_key_value_heads=5, intermediate_size=37),
    "everything": dict(
        num_key_value_heads=2, tie_word_embeddings=True, head_dim=20, rope_theta=1e6, rope_scaling=LLAMA3, rms_norm_eps=1e-5
    ),
}


def make_model(**options):
    torch.manual_seed(7)
    model = LlamaForCausalLM(LlamaConfig(**{**BASE, **options}))
    with torch.no_grad():  # gains that are all 1 would hide a missing factor
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def make_tokens(vocabulary, batch=3, length=70):
    generator = torch.Generator().manual_seed(11)
    tokens = torch.randint(0, vocabulary, (batch, length + 1), generator=generator)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def reference(model, inputs, targets):
    logits = model(input_ids=inputs).logits.float()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    return logits.detach(), loss.detach(), gradients


@pytest.fixture(scope="session")
def outputs(repository, request):
    program = request.config.getoption("--program")
    tool = os.path.join(os.path.dirname(os.path.abspath(program)), "tests", "llama_outputs")
    if not os.path.isfile(tool):
        pytest.fail(f"{tool} is missing; run `make build` first", pytrace=False)

    def call(folder, inputs, targets, work, precision="fp32", save_to=None):
        save_file({"inputs": inputs, "targets": targets}, work / "in.safetensors")
        command = [tool, str(folder), str(work / "in.safetensors"), str(work / "out.safetensors"), precision]
        if save_to is not None:
            save_to.mkdir()
            command.append(str(save_to))
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return load_file(work / "out.safetensors")

    return call


def relative(a, b):
    return ((a - b).norm() / b.norm().clamp_min(1e-12)).item()


@pytest.mark.parametrize("name", OPTIONS)
def test_fp32_equals_transformers(name, outputs, tmp_path):
    model = make_model(**OPTIONS[name])
    model.save_pretrained(tmp_path / "model")
    inputs, targets = make_tokens(model.config.vocab_size)
    logits, loss, gradients = reference(model, inputs, targets)
    ours = outputs(tmp_path / "model", inputs, targets, tmp_path)
    assert (ours["logits"] - logits).abs().max() < 1e-4
    assert abs(ours["loss"].item() - loss.item()) < 1e-5
    for parameter, gradient in gradients.items():
        assert relative(ours[parameter], gradient) < 1e-3, parameter
    assert set(ours) - {"logits", "loss"} == set(gradients)


def test_bf16_is_as_close_to_fp32_as_autocast(outputs, tmp_path):
    model = make_model(num_key_value_heads=2)
    model.save_pretrained(tmp_path / "model")
    inputs, targets = make_tokens(model.config.vocab_size)
    _, loss, gradients = reference(model, inputs, targets)
    exact = {name: gradient.clone() for name, gradient in gradients.items()}
    model.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, _, cast = reference(model, inputs, targets)
    ours = outputs(tmp_path / "model", inputs, targets, tmp_path, precision="bf16")
    assert abs(ours["loss"].item() - loss.item()) < 0.01
    for parameter, gradient in exact.items():
        assert relative(ours[parameter], gradient) < 1.5 * relative(cast[parameter], gradient) + 1e-3, parameter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sharded", [False, True])
def test_reads_and_writes_hugging_face_folders(dtype, sharded, outputs, tmp_path):
    model = make_model().to(dtype)
    model.save_pretrained(tmp_path / "model", max_shard_size="60KB" if sharded else "1GB")
    assert (tmp_path / "model" / "model.safetensors.index.json").exists() == sharded
    inputs, targets = make_tokens(model.config.vocab_size)
    model = LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    logits, _, _ = reference(model, inputs, targets)
    ours = outputs(tmp_path / "model", inputs, targets, tmp_path, save_to=tmp_path / "again")
    assert (ours["logits"] - logits).abs().max() < 1e-4
    again = LlamaForCausalLM.from_pretrained(tmp_path / "again")
    for name, parameter in model.named_parameters():
        assert torch.equal(again.state_dict()[name], parameter), name
    assert again.config.rope_theta == model.config.rope_theta
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id


def test_saved_options_survive(outputs, tmp_path):
    model = make_model(**OPTIONS["everything"])
    model.save_pretrained(tmp_path / "model")
    inputs, targets = make_tokens(model.config.vocab_size)
    outputs(tmp_path / "model", inputs, targets, tmp_path, save_to=tmp_path / "again")
    again = LlamaForCausalLM.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(again(input_ids=inputs).logits, model(input_ids=inputs).logits)
