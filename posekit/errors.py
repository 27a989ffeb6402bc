"""Everything that posekit raises on purpose.

PosekitError
├── InputError (also ValueError)          an argument's shape, type or range
├── SourceError                           a video, image or stream cannot be read or written
├── CheckpointError                       not a checkpoint we know, or it does not fit strictly
├── BundleError                           missing, damaged, tampered with, or of another version
├── MissingExtraError (also ImportError)  says which extra to install
├── DeviceError                           the requested device or provider is not there
├── EngineError
│   ├── ExportError                       a network or graph cannot be exported
│   ├── ParityError                       an export deviates from its source; carries how far, px
│   └── KernelError                       a CUDA kernel does not compile, load or launch
└── AdaptError
    ├── RecipeError                       a recipe names something that does not exist
    ├── DataError                         too few images, or too uniform
    ├── DivergedError                     the loss is no longer finite
    ├── CollapsedError                    the network gives no peaks any more
    └── RejectedError                     the gate found the result no better than the source

A message says what went wrong, where, what was got, what was wanted and what to do.
Each class carries the exit code that the command line ends with.
"""


class PosekitError(Exception):
    """Root of the tree; `exit_code` is what the command line returns for it."""

    exit_code = 1


class InputError(PosekitError, ValueError):
    """An argument's shape, type or range is wrong."""


class SourceError(PosekitError):
    """A video, image or stream cannot be read or written."""


class CheckpointError(PosekitError):
    """A file is not a checkpoint that posekit knows, or does not fit strictly."""


class BundleError(PosekitError):
    """A bundle is missing, damaged, tampered with, or of another version."""


class MissingExtraError(PosekitError, ImportError):
    """An optional part is not installed; the message names the extra."""

    exit_code = 3


class DeviceError(PosekitError):
    """The requested device or provider is not there."""

    exit_code = 3


class EngineError(PosekitError):
    """Making or running an engine failed."""


class ExportError(EngineError):
    """A network or graph cannot be exported."""


class ParityError(EngineError):
    """An export deviates from its source by more than its budget.

    `shift_px` is the measured shift in crop pixels.
    """

    exit_code = 4

    def __init__(self, message: str, shift_px: float) -> None:
        super().__init__(message)
        self.shift_px = shift_px


class KernelError(EngineError):
    """A CUDA kernel does not compile, load or launch."""

    exit_code = 3


class AdaptError(PosekitError):
    """Adaptation could not be run or was refused."""


class RecipeError(AdaptError):
    """A recipe names something that does not exist."""


class DataError(AdaptError):
    """The images are too few or too uniform to learn from."""


class DivergedError(AdaptError):
    """The loss is no longer finite; the old weights stand."""

    exit_code = 5


class CollapsedError(AdaptError):
    """The network gives no peaks any more; the old weights stand."""

    exit_code = 5


class RejectedError(AdaptError):
    """The gate found the result no better than the source; the old weights stand."""

    exit_code = 5
