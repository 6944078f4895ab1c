"""A data set before training: its images by class, sizes, copies, damage and augmentation."""

from keras_preact.support import extras

extras.check()

from keras_preact.inspection.config import InspectionConfig
from keras_preact.inspection.report import Report, inspect
from keras_preact.inspection.run import run

__all__ = ["InspectionConfig", "Report", "inspect", "run"]
