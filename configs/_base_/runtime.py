"""What every config shares beyond OpenMMLab's own runtime: our registrations, safe checkpoints, exact resuming."""

custom_imports = dict(imports=['hybrid_backbones'], allow_failed_imports=False)

custom_hooks = [
    # Every random draw of training becomes a function of (seed, iteration), so that a resumed run repeats the unbroken.
    dict(type='ReproducibleRunHook'),
    dict(type='CheckFiniteLossHook'),
    dict(type='FixedStatisticsHook'),
]

find_unused_parameters = False
