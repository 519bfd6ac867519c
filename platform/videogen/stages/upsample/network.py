"""Video U-Net of an upsample stage, which also sees the low-resolution latents."""

from videogen.diffusion import conditioning
from videogen.models.unet import VideoUNet
from videogen.stages.base import network
from videogen.stages.cascade import CascadeConfig


def build_network(config: CascadeConfig, name: str = "upsample") -> VideoUNet:
    """Return the fresh U-Net of an upsample stage."""
    return network.build_network(config, name, conditioning.UPSAMPLE_CONDITIONS)
