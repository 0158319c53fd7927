"""Writes recipes/tuned/NAME.toml: for every method the setting that came out best on the smaller shape, ready to run."""

import re

TEXT = """# {label}: validation loss {loss} after {tokens:,} tokens ({seeds}), {how}.
# See docs/results.md; `make demo` prepares the data.
[model]
config = "{shape}"
{model}
[data]
path = "runs/demo/data"
sequence_length = 256

[optimizer]
method = "{method}"
{optimizer}
[train]
batch_tokens = {batch}
micro_batch_size = 16
max_steps = {steps}
warmup_steps = {warmup}
schedule = "{schedule}"
final_lr_fraction = 0.1
precision = "bf16"

[eval]
every = 50
tokens = 200000
{roles}"""


def slug(label):
    return re.sub(r"[^a-z0-9]+", "_", label.lower()).strip("_")


def toml(value):
    return f'"{value}"' if isinstance(value, str) else repr(value)


def text_of(result, warmup_share):
    row, settings = result.best[0], dict(result.best[0]["settings"])
    schedule = settings.pop("train.schedule", "cosine")
    model = "".join(f"{key.removeprefix('model.')} = {toml(settings.pop(key))}\n" for key in list(settings) if key.startswith("model."))
    roles = {}
    for key in [key for key in settings if "." in key]:
        role, name = key.split(".")
        roles.setdefault(role, []).append(f"{name} = {toml(settings.pop(key))}\n")
    if result.method.searched:
        how = "learning rate found by `steepest tune --sos-fast`"
    elif result.method.centre is None:
        how = "nothing tuned"
    else:
        how = f"best of {len(result.grid)} settings"
    loss = f"{result.mean:.4f}" + (f" +- {result.deviation:.4f}" if len(result.losses) > 1 else "")
    return TEXT.format(
        label=result.method.label, loss=loss, tokens=row["tokens"], seeds=f"{len(result.losses)} seeds", how=how,
        shape=result.shape.name, model=model, method=result.method.name, batch=result.shape.batch_tokens, steps=result.shape.steps,
        warmup=int(result.shape.steps * warmup_share), schedule=schedule,
        optimizer="".join(f"{key} = {toml(value)}\n" for key, value in sorted(settings.items())),
        roles="".join(f"\n[optimizer.{role}]\n{''.join(lines)}" for role, lines in sorted(roles.items())))


def write(results, folder, warmup_share):
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        if result.losses:
            (folder / f"{slug(result.method.label)}.toml").write_text(text_of(result, warmup_share), encoding="utf-8")
