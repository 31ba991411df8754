"""Datasets: shards of Arrow, built from a user's files and read window by window."""

from rnnfarm.data.build import build_dataset, build_from_settings, ensure_dataset
from rnnfarm.data.dataset import Dataset, open_dataset
from rnnfarm.data.examples import Examples
from rnnfarm.data.inputs import FilePattern
from rnnfarm.data.manifest import Column, ShardInfo, SplitInfo
from rnnfarm.data.reader import Reader, Sequence
from rnnfarm.data.split import Split
from rnnfarm.data.streams import Streams
from rnnfarm.data.vocabulary import Vocabulary
from rnnfarm.data.window import Window, Windows
from rnnfarm.data.writer import DatasetWriter

__all__ = [
    "Column",
    "Dataset",
    "DatasetWriter",
    "Examples",
    "FilePattern",
    "Reader",
    "Sequence",
    "ShardInfo",
    "Split",
    "SplitInfo",
    "Streams",
    "Vocabulary",
    "Window",
    "Windows",
    "build_dataset",
    "build_from_settings",
    "ensure_dataset",
    "open_dataset",
]
