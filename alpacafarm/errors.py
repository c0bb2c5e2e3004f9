"""The errors a user can cause. Each message names what is wrong, where, what is required and a way out."""


class AlpacaFarmError(Exception):
    """Base of every error that is reported without a traceback; `exit_code` is the process's."""

    exit_code = 1


class SpecError(AlpacaFarmError):
    """The spec is wrong. Nothing has been loaded or made."""

    exit_code = 2


class PlanError(SpecError):
    """The spec is well formed but the stages it asks for cannot be built."""


class ArtifactError(AlpacaFarmError):
    """A stored or given artifact is missing, damaged or of the wrong kind."""


class JudgeError(AlpacaFarmError):
    """A judge could not be used at all (single failed verdicts are typed, counted and not raised)."""


class BudgetError(AlpacaFarmError):
    """The next request could pass the budget. What was answered is kept."""


class StageError(AlpacaFarmError):
    """A stage failed; the message names the stage, its folder and its log."""


class NeedsLabels(AlpacaFarmError):  # noqa: N818  # waiting for people is not a fault
    """The run waits for people to label pairs; the message says where they are and how to go on."""

    exit_code = 3
