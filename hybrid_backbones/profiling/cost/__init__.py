"""Parameters, multiply-adds and activations, counted from the operators that are executed."""

from .counting import Cost, UnknownOperatorError, backbone_cost, count_cost, model_cost

__all__ = ['Cost', 'UnknownOperatorError', 'backbone_cost', 'count_cost', 'model_cost']
