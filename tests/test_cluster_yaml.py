"""`cluster.yaml` passes Ray's own validation and has the pools that the README promises."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_it(cluster):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(cluster)
    validate_config(config)

    assert config["head_node_type"] == "head"
    assert set(config["available_node_types"]) == {"head", "decode", "encode", "train", "serve"}


def test_rays_validation_would_notice_a_wrong_key(cluster):
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    wrong = {**cluster, "max_worker": 1}
    with pytest.raises(jsonschema.ValidationError, match="max_worker"):
        validate_config(prepare_config(wrong))


def test_only_the_head_runs_all_the_time_and_data_runs_on_spot(cluster):
    pools = {name: pool for name, pool in cluster["available_node_types"].items() if name != "head"}
    assert all(pool["min_workers"] == 0 for pool in pools.values())
    assert sum(pool["max_workers"] for pool in pools.values()) == cluster["max_workers"]

    spot = {name for name, pool in pools.items() if "InstanceMarketOptions" in pool["node_config"]}
    assert spot == {"decode", "encode"}
    assert {name for name, pool in pools.items() if pool["resources"].get("GPU")} == {"encode", "train", "serve"}


def test_every_node_names_its_pool_and_work_is_bound_to_pools_where_there_are_some(
    cluster, ray_cluster, run_script, tmp_path
):
    from pipelines.cluster.connection import pool

    types = cluster["available_node_types"]
    assert {name: kind["labels"]["pool"] for name, kind in types.items()} == {name: name for name in types}
    assert pool("train") == {}
    script = tmp_path / "labelled.py"
    script.write_text(
        "import ray\nfrom pipelines.cluster.connection import pool\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, labels={'pool': 'head'})\n"
        "print(pool('train'))\n"
    )
    result = run_script(str(script))
    assert result.stdout.strip() == "{'pool': 'train'}", result.stderr


def test_the_image_has_the_python_and_the_ray_of_this_project(cluster):
    ray_version = next(
        line.split("==")[1] for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    )
    images = [cluster["docker"]["image"]]
    images += [pool["docker"]["worker_image"] for pool in cluster["available_node_types"].values() if "docker" in pool]
    assert all(image.startswith(f"rayproject/ray:{ray_version}-py311-") for image in images)


def test_nodes_are_set_up_by_the_make_target_and_keep_token_authentication(cluster):
    assert any("make PYTHON=python install" in command for command in cluster["setup_commands"])
    assert "/home/ray/.ray/auth_token" in cluster["file_mounts"]
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        starts = [command for command in cluster[key] if "ray start" in command]
        assert len(starts) == 1
        assert "RAY_AUTH_MODE=token" in starts[0]
        assert ". .venv/bin/activate" in starts[0]
