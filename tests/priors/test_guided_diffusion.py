"""guided-diffusion and improved-diffusion checkpoints against their format's own operations."""

import pytest
import torch
from formats import Guided, guided, random_state
from safetensors.torch import save_file

from deqir.errors import OptionError, UnsupportedCheckpointError
from deqir.priors import load_prior
from deqir.priors.guided_settings import published_settings
from deqir.schedule import NoiseSchedule

CONFIGS = {
    "one head for each 8 channels": Guided(head_channels=8),
    "heads by number, two widths": Guided(heads=4, attention=(True, True)),
    "other heads on the way up": Guided(heads=4, heads_up=2, attention=(True, True)),
    "new attention order": Guided(head_channels=16, new_order=True, attention=(True, True)),
    "new order by number": Guided(heads=2, new_order=True),
    "two residual blocks": Guided(heads=1, blocks=2),
    "three levels, three blocks": Guided(heads=2, multipliers=(1, 2, 3), attention=(False, True, False), blocks=3),
    "half as wide at the top": Guided(64, (0.5, 1, 2), (False, False, True), head_channels=32),
    "added embedding": Guided(heads=2, scale_shift=False),
    "learned variance": Guided(heads=2, learn_sigma=True),
    "improved diffusion": Guided(heads=4, resampling="conv", blocks=2),
    "improved, attention everywhere": Guided(heads=1, resampling="conv", scale_shift=False, attention=(True, True)),
    "pooling and repetition": Guided(heads=2, resampling="plain", blocks=2, attention=(True, False)),
    "one level": Guided(heads=2, multipliers=(2,), attention=(True,), blocks=2),
    "one channel": Guided(heads=2, channels=1, learn_sigma=True),
}


def options(config):
    """The options of ``load_prior`` for what the tensors of ``config`` do not tell."""
    named = {
        "num_heads": config.heads,
        "num_head_channels": config.head_channels,
        "num_heads_upsample": config.heads_up,
        "use_new_attention_order": config.new_order or None,
    }
    return {name: value for name, value in named.items() if value is not None}


def saved(path, config, **given):
    state = random_state(guided, config, **given)
    save_file(state, path / "model.safetensors")
    return path / "model.safetensors", state


@pytest.mark.parametrize("name", CONFIGS)
def test_the_converted_network_is_the_original(tmp_path, name):
    config = CONFIGS[name]
    file, state = saved(tmp_path, config)
    x, t = torch.randn(2, config.channels, 16, 8), torch.tensor([3, 850])
    prior = load_prior(file, **options(config))
    with torch.no_grad():
        expected = guided(state, config, x, t)[:, : config.channels]
        torch.testing.assert_close(prior(x, t), expected, rtol=0, atol=1e-5)
    assert prior.channels == config.channels
    assert expected.std() > 0.1


@torch.no_grad()
def test_the_norms_epsilon(tmp_path):
    """Features of a thousandth: their variance is that of the epsilon."""
    config = Guided(heads=2)
    file, state = saved(tmp_path, config)
    state["input_blocks.0.0.weight"] *= 1e-3
    state["input_blocks.0.0.bias"] *= 1e-3
    save_file(state, file)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([40])
    torch.testing.assert_close(load_prior(file, num_heads=2)(x, t), guided(state, config, x, t), rtol=0, atol=1e-5)


def test_every_class_has_its_own_prediction(tmp_path):
    config = Guided(heads=2, classes=5)
    file, state = saved(tmp_path, config, label=0)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([40])
    with torch.no_grad():
        for label in (0, 4):
            torch.testing.assert_close(
                load_prior(file, num_heads=2, label=label)(x, t), guided(state, config, x, t, label), rtol=0, atol=1e-5
            )
        assert (guided(state, config, x, t, 0) - guided(state, config, x, t, 4)).abs().max() > 0.01


def test_the_head_count_matters(tmp_path):
    """So that a wrong one could not pass the comparison above."""
    file, _ = saved(tmp_path, Guided(heads=4))
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([40])
    with torch.no_grad():
        assert (load_prior(file, num_heads=4)(x, t) - load_prior(file, num_heads=2)(x, t)).abs().max() > 1e-3


def test_rescaled_timesteps_and_their_schedule(tmp_path):
    config = Guided(heads=1, timestep_scale=0.25, resampling="conv")
    file, state = saved(tmp_path, config)
    prior = load_prior(file, num_heads=1, schedule="cosine", diffusion_steps=4000, rescale_timesteps=True)
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([3001])
    assert len(prior.schedule) == 4000
    with torch.no_grad():
        torch.testing.assert_close(prior(x, t), guided(state, config, x, t), rtol=0, atol=1e-5)


def test_the_linear_schedule_keeps_its_limits_in_continuous_time(tmp_path):
    file, _ = saved(tmp_path, Guided(heads=1))
    half, whole = (load_prior(file, num_heads=1, diffusion_steps=n).schedule.alphas_cumprod for n in (500, 1000))
    torch.testing.assert_close(half[-1].log(), whole[-1].log(), rtol=0.01, atol=0)
    torch.testing.assert_close(whole, NoiseSchedule.linear().alphas_cumprod)
    assert 1 - half[0] == pytest.approx(2e-4)


def test_half_precision_files_load_as_float32(tmp_path):
    config = Guided(heads=2)
    state = random_state(guided, config)
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "half.pt")
    x, t = torch.randn(1, 3, 8, 8), torch.tensor([40])
    with torch.no_grad():
        answer = load_prior(tmp_path / "half.pt", num_heads=2)(x, t)
        rounded = type(state)({key: value.half().float() for key, value in state.items()})
        torch.testing.assert_close(answer, guided(rounded, config, x, t), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("base", "multipliers", "blocks", "resnet", "expected"),
    [
        (192, (1, 2, 3, 4), 3, True, (64, 9, True, 1000, False, 64)),
        (256, (1, 1, 2, 3, 4), 2, True, (128, 4, False, 1000, True, None)),
        (256, (1, 1, 2, 2, 4, 4), 2, True, (256, 9, False, 1000, True, 64)),
        (256, (0.5, 1, 1, 2, 2, 4, 4), 2, True, (512, 9, False, 1000, True, 64)),
        (128, (1, 1, 2, 2, 4, 4), 1, True, (256, 9, False, 1000, True, 64)),
        (128, (1, 2, 3, 4), 3, False, (64, 4, False, 4000, False, None)),
        (128, (1, 2, 2, 2), 3, False, (32, 4, False, 4000, False, None)),
        (128, (1, 1, 2, 2, 4, 4), 2, False, (256, 1, False, 1000, True, None)),
    ],
)
def test_published_models_are_known_by_their_shapes(base, multipliers, blocks, resnet, expected):
    s = published_settings(base, multipliers, blocks, resnet, 1000)
    known = (s.image_size, s.heads(576, False), s.new_attention_order, len(s.schedule), s.linear, s.num_head_channels)
    assert known == expected
    assert s.rescale_timesteps == (len(s.schedule) == 4000)


def test_unknown_heads_are_asked_for(tmp_path):
    file, _ = saved(tmp_path, Guided(heads=2))
    with pytest.raises(UnsupportedCheckpointError, match="give num_heads or num_head_channels"):
        load_prior(file)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_heads": 5}, "64 channels, which its heads do not divide"),
        ({"num_head_channels": 48}, "heads of 48 channels do not divide"),
        ({"num_heads": 2, "num_head_channels": 8}, "both given"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"num_heads": 2, "channels": 4}, "channels does not apply"),
        ({"num_heads": 2, "null_label": 3}, "has 0 classes"),
        ({"num_heads": 2, "schedule": "wavy"}, "schedule is 'wavy'"),
        ({"num_heads": 2, "prediction": "flow"}, "prediction is 'flow'"),
        ({"heads": 2}, "no option 'heads'; choose one of num_heads"),
    ],
)
def test_options_that_do_not_fit(tmp_path, given, message):
    file, _ = saved(tmp_path, Guided(heads=2))
    with pytest.raises(OptionError, match=message):
        load_prior(file, **given)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"remove": "middle_block.1.norm.weight"}, "missing: middle_block.1.norm.weight"),
        ({"remove": "time_embed.0.weight"}, "time_embed.0.weight' is missing"),
        ({"add": "middle_block.1.encoder_kv.weight"}, "unexpected: middle_block.1.encoder_kv.weight"),
        ({"reshape": "out.0.bias"}, "of another shape: out.0.bias"),
        ({"remove": "out.2.weight"}, "classifier or half a model"),
        ({"reshape": "out.2.weight"}, "takes 3 channels and returns 5"),
    ],
)
def test_damage_is_named_in_the_checkpoints_own_words(tmp_path, damage, message):
    file, state = saved(tmp_path, Guided(heads=2))
    if "remove" in damage:
        del state[damage["remove"]]
    if "add" in damage:
        state[damage["add"]] = torch.zeros(3)
    if "reshape" in damage:
        state[damage["reshape"]] = torch.zeros(5, 32, 3, 3) if "weight" in damage["reshape"] else torch.zeros(5)
    save_file(state, file)
    with pytest.raises(UnsupportedCheckpointError, match=message) as caught:
        load_prior(file, num_heads=2)
    assert "\n" not in str(caught.value)


def test_an_upsampler_and_a_wider_first_level_are_refused(tmp_path):
    file, state = saved(tmp_path, Guided(heads=2))
    save_file(state | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}, file)
    with pytest.raises(UnsupportedCheckpointError, match="as an upsampler does"):
        load_prior(file, num_heads=2)
    save_file(state | {"input_blocks.0.0.weight": torch.zeros(16, 3, 3, 3)}, file)
    with pytest.raises(UnsupportedCheckpointError, match="does not build"):
        load_prior(file, num_heads=2)
