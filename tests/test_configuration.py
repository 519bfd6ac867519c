"""Configuration of a cascade: identity of trained stages, renamed keys, typed access to sections, descriptions."""

import pytest
import yaml

from pipelines.train.identity import config_hash
from videogen.config import preset_names
from videogen.errors import UserError
from videogen.hashing import json_hash
from videogen.stages import STAGES, config_from_dict, load_preset, stage_definition
from videogen.stages.base import BaseConfig
from videogen.stages.decode import DecodeConfig
from videogen.stages.upsample import UpsampleConfig

# Trained models are recognized by these: a change means that everyone trains again.
DUMPS = {"tiny": "cdf8d0103554", "small": "b18c0c3952f6", "paper": "83d911606fb4"}
STAGE_HASHES = {
    "tiny": {
        "autoencoder": "7cbaede110b5",
        "reference": "01f02ce76e3d",
        "base": "a51bfddd2862",
        "upsample": "2cc1ccdc8d5a",
        "interpolate": "d0a9db8d312b",
        "decode": "56c5f828b30c",
    },
    "small": {
        "base": "22ec0857310d",
        "upsample": "55680d00b3e8",
        "interpolate": "e58464066b1f",
        "decode": "2ff94f3206ce",
    },
    "paper": {
        "base": "a624a0e42750",
        "upsample_1": "ef86cb0111cd",
        "upsample_2": "338ca4b17b6c",
        "interpolate": "ca13c7d9083d",
        "decode": "c6669d93913e",
    },
}


@pytest.mark.parametrize("preset", preset_names())
def test_the_identity_of_what_a_preset_trains_does_not_change(preset):
    config = load_preset(preset)
    assert json_hash(config.model_dump(mode="json"), digits=12) == DUMPS[preset]
    hashes = {name: config_hash(config, name) for name in config.trainable_stages()}
    assert hashes == STAGE_HASHES[preset]


def test_the_former_name_of_a_key_is_refused_with_its_present_name(tmp_path):
    values = load_preset("tiny").model_dump(mode="json")
    values["reference"]["timestep_spread"] = values["reference"].pop("logit_std")
    preset = tmp_path / "mine.yaml"
    preset.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"'reference.timestep_spread'.* now named 'logit_std': rename it"):
        load_preset(str(preset))
    with pytest.raises(UserError, match=r"'reference.timestep_spread'.* now named 'logit_std': run jobs/train_cascade"):
        config_from_dict(values)


def test_sections_are_found_by_the_name_of_the_stage():
    config = load_preset("paper")
    assert config.stage_config("base", BaseConfig) is config.base
    assert config.stage_config("upsample_2", UpsampleConfig) is config.upsample[1]
    assert config.training_of("decode") is config.decode.training
    assert config.stage_config("autoencoder") is config.autoencoder
    with pytest.raises(KeyError, match="upsample_1"):
        config.stage_config("upsample")
    with pytest.raises(KeyError, match="training"):
        config.training_of("text")
    with pytest.raises(TypeError, match="DecodeConfig"):
        config.stage_config("base", DecodeConfig)


@pytest.mark.parametrize("preset", preset_names())
def test_every_stage_says_the_size_of_what_it_makes(preset):
    config = load_preset(preset)
    shapes = {name: stage_definition(name).output_shape(config, name) for name in config.stage_names()}
    assert all(shapes.values())
    assert shapes["decode"].startswith(f"{config.num_output_frames} x {config.resolution} x")
    titles = [stage_definition(name).title(name) for name in config.stage_names() if stage_definition(name).preview]
    assert len(set(titles)) == len(titles)


def test_the_configuration_has_a_section_for_every_registered_stage():
    assert list(type(load_preset("tiny")).model_fields)[-len(STAGES) :] == list(STAGES)
