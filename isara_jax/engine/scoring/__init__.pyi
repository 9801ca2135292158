from .likelihood import (
    LoglikelihoodRequest as LoglikelihoodRequest,
    loglikelihood as loglikelihood,
)
