"""What a trained run's gradients, units, residuals and data say about its training, worst first."""

from .findings import KINDS, Finding, Patient
from .visit import Diagnosis, examine, patient_of

__all__ = ["KINDS", "Diagnosis", "Finding", "Patient", "examine", "patient_of"]
