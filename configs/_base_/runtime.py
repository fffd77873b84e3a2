"""What every config shares beyond OpenMMLab's own runtime: our registrations, safe checkpoints, exact resuming."""

custom_imports = dict(imports=['hybrid_backbones'], allow_failed_imports=False)

# The list that tools/train.py adds to any config. An `import` statement would make this a config in pure Python, which
# configs of the other kind cannot inherit from.
custom_hooks = __import__('hybrid_backbones.engine.safeguards', fromlist=['HOOKS']).HOOKS

find_unused_parameters = False
