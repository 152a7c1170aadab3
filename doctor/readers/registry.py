"""All readers, in the order in which they are asked. Adding a format = one file and one line here."""

from __future__ import annotations

from doctor.readers.accelerate import Accelerate
from doctor.readers.adapter_config import AdapterConfig
from doctor.readers.base import Reader
from doctor.readers.command import Command
from doctor.readers.config_yaml import ConfigYaml
from doctor.readers.console.error_file import ErrorFile
from doctor.readers.console.reader import Console
from doctor.readers.deepspeed import DeepSpeed
from doctor.readers.journal import Journal
from doctor.readers.mlflow import MlflowDatabase, MlflowRun
from doctor.readers.model_card import ModelCard
from doctor.readers.model_config import ModelConfig
from doctor.readers.results import Results
from doctor.readers.snapshots import FlightRecorder, MemorySnapshot
from doctor.readers.stacks import Stacks
from doctor.readers.swanlab import SwanLab, SwanLabConfig
from doctor.readers.tensorboard.reader import TensorBoard
from doctor.readers.trackio import Trackio
from doctor.readers.trainer_log import TrainerLog
from doctor.readers.trainer_state import TrainerState
from doctor.readers.training_args import TrainingArgs
from doctor.readers.wandb import Wandb, WandbConfig

READERS: tuple[Reader, ...] = (
    Journal(),
    TrainerLog(),
    TrainerState(),
    TensorBoard(),
    Wandb(),
    WandbConfig(),
    SwanLab(),
    SwanLabConfig(),
    MlflowRun(),
    MlflowDatabase(),
    Trackio(),
    TrainingArgs(),
    Results(),
    AdapterConfig(),
    ModelCard(),
    ModelConfig(),
    DeepSpeed(),
    Accelerate(),
    ErrorFile(),
    MemorySnapshot(),
    FlightRecorder(),
    Stacks(),
    ConfigYaml(),
    Command(),
    Console(),
)
"""The first that claims a file reads it. The console is last: it claims whatever looks like a log."""
