"""Parameters, multiply-adds and activations, by what is executed."""

from .counting import Cost, UnknownOperatorError, backbone_cost, count_cost, model_cost

__all__ = ['Cost', 'UnknownOperatorError', 'backbone_cost', 'count_cost', 'model_cost']
